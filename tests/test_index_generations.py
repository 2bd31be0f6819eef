"""A new generation of an index: built beside the one that serves, switched to, or given up."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedserve.errors import VectorStoreError
from embedserve.services.index_worker import BATCH, IndexWorker
from embedserve.store.catalog import Catalog
from embedserve.types import Index, Vectors
from tests.fakes import MemoryVectorIndex
from tests.store_samples import catalog_with_index, document, wait_until

TEXTS = [f"text {number}" for number in range(2400)]  # three batches


def switched(catalog: Catalog, former: Index) -> bool:
    return catalog.indexes.get(former.name).key != former.key


def test_queries_are_served_from_the_old_generation_until_the_new_one_is_whole(
    tmp_path: Path,
) -> None:
    class Watched(MemoryVectorIndex):
        """Looks at what serves each time something is written to the new generation."""

        def upsert(self, key: int, ids: NDArray[np.int64], vectors: Vectors) -> None:
            super().upsert(key, ids, vectors)
            if key != index.key:
                served.append((catalog.indexes.get("notes").key, self.count(index.key)))
                if len(served) == 2:  # changes meanwhile go to both
                    catalog.documents.delete(index, "/d/b", job_id=job)
                    new = document("/d/c", ["new"])
                    catalog.documents.commit(index, new, job_id=job, outcome="added")

    served: list[tuple[int, int]] = []
    with catalog_with_index(tmp_path) as (catalog, index, job):
        for name, texts in (("a", TEXTS[:900]), ("b", TEXTS[900:])):
            catalog.documents.commit(
                index, document(f"/d/{name}", texts), job_id=job, outcome="added"
            )
        vector_index = Watched()
        worker = IndexWorker(catalog, vector_index)
        worker.start(check=False)
        assert worker.wait_until_applied(index.id, 30)
        vector_index.rows[index.key][10**6] = vector_index.rows[index.key][1]  # a stray
        catalog.generations.begin(index)
        worker.hurry()
        wait_until(lambda: switched(catalog, index), within_s=30)
        present = catalog.indexes.get("notes")
        assert all(key == index.key and count >= 900 for key, count in served)
        assert len(served) >= 3
        assert vector_index.ids(present.key).tolist() == catalog.chunks.ids(index.id).tolist()
        assert worker.is_ready(present.key)
        wait_until(lambda: not catalog.generations.dropped(), within_s=10)
        assert list(vector_index.rows) == [present.key]
        worker.stop()


def test_a_build_that_was_cut_off_goes_on_where_it_stopped(tmp_path: Path) -> None:
    class Dying(MemoryVectorIndex):
        calls = 0
        is_dying = True

        def upsert(self, key: int, ids: NDArray[np.int64], vectors: Vectors) -> None:
            if key != index.key:
                self.calls += 1
                if self.calls == 2 and self.is_dying:
                    raise VectorStoreError("gone, as the test asked")
            super().upsert(key, ids, vectors)

    with catalog_with_index(tmp_path) as (catalog, index, job):
        catalog.documents.commit(index, document("/d/a", TEXTS), job_id=job, outcome="added")
        vector_index = Dying()
        worker = IndexWorker(catalog, vector_index)
        worker.start(check=False)
        assert worker.wait_until_applied(index.id, 30)
        catalog.generations.begin(index)
        worker.hurry()
        wait_until(lambda: vector_index.calls >= 2, within_s=30)
        worker.stop()
        building = catalog.generations.building(index.id)
        assert building is not None
        assert building.filled_to == BATCH < len(TEXTS)
        assert not switched(catalog, index)
        assert catalog.generations.begin(index) == building, "there is one at a time"
        vector_index.is_dying, vector_index.calls = False, 0
        worker = IndexWorker(catalog, vector_index)
        worker.start(check=True)
        wait_until(lambda: switched(catalog, index), within_s=30)
        worker.stop()
        assert vector_index.calls == 2, "the first batch was not stored again"
        assert len(vector_index.ids(building.key)) == len(TEXTS)


def test_a_chunk_without_a_vector_does_not_hold_a_build_up(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        catalog.documents.commit(index, document("/d/a", TEXTS[:9]), job_id=job, outcome="added")
        with catalog._database.write() as connection:
            connection.execute("DELETE FROM vectors WHERE rowid = 3")
        vector_index = MemoryVectorIndex()
        worker = IndexWorker(catalog, vector_index)
        worker.start(check=False)
        catalog.generations.begin(index)
        worker.hurry()
        wait_until(lambda: switched(catalog, index), within_s=30)
        worker.stop()
        assert len(vector_index.rows[catalog.indexes.get("notes").key]) == 8


def test_an_index_deleted_while_it_is_built_leaves_nothing(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        catalog.documents.commit(index, document("/d/a", ["x"]), job_id=job, outcome="added")
        building = catalog.generations.begin(index)
        vector_index = MemoryVectorIndex()
        vector_index.upsert(building.key, np.array([1]), np.ones((1, 8), np.float32))
        catalog.indexes.delete("notes")
        assert catalog.generations.dropped() == [index.key, building.key]
        assert not catalog.generations.switch(index, building)
        worker = IndexWorker(catalog, vector_index)
        worker.start(check=False)
        wait_until(lambda: not catalog.generations.dropped(), within_s=10)
        worker.stop()
        assert vector_index.rows == {}


def test_questions_are_answered_between_batches_and_refused_after_the_end(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, _):
        worker = IndexWorker(catalog, MemoryVectorIndex())
        worker.start(check=False)
        assert worker.ask(lambda: index.name).result(10) == "notes"
        with pytest.raises(ZeroDivisionError):
            worker.ask(lambda: 1 // 0).result(10)
        worker.stop()
        with pytest.raises(Exception, match="stopping"):
            worker.ask(lambda: 1).result(10)
