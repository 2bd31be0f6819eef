from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedserve.errors import VectorStoreError, VectorStoreUnreachableError
from embedserve.store.catalog import Catalog
from embedserve.store.repair import check, repair
from embedserve.store.vector_index import VectorIndex
from embedserve.types import Index
from tests.fakes import MemoryVectorIndex
from tests.store_samples import catalog_with_index, document, drain, unit_vectors

House = tuple[Catalog, Index, MemoryVectorIndex]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Give a catalog and a vector index that agree on forty chunks."""
    with catalog_with_index(tmp_path) as (catalog, index, job):
        version = document("/d/a", [f"text {n}" for n in range(40)])
        catalog.documents.commit(index, version, job_id=job, outcome="added")
        vector_index = MemoryVectorIndex()
        drain(catalog, vector_index, index)
        yield catalog, index, vector_index


def put_right(catalog: Catalog, vector_index: VectorIndex, index: Index) -> int:
    changes = repair(catalog, vector_index, index, check(catalog, vector_index, index))
    drain(catalog, vector_index, index)
    assert find(catalog, vector_index, index) == []
    return changes


def find(catalog: Catalog, vector_index: VectorIndex, index: Index) -> list[int]:
    """List the ids that differ."""
    health = check(catalog, vector_index, index, sample=200)
    assert not health.is_unreadable
    return [*health.missing.tolist(), *health.extra.tolist(), *health.lost.tolist()]


def test_what_agrees_is_healthy(house: House) -> None:
    catalog, index, vector_index = house
    health = check(catalog, vector_index, index, sample=16)
    assert health.sampled == 16
    assert find(catalog, vector_index, index) == []
    assert repair(catalog, vector_index, index, health) == 0


def test_missing_and_extra_ids_are_found_and_put_right(house: House) -> None:
    catalog, index, vector_index = house
    vector_index.delete(index.id, [3, 4])
    vector_index.upsert(index.id, np.array([900]), unit_vectors(1, seed=9))
    health = check(catalog, vector_index, index)
    assert (health.missing.tolist(), health.extra.tolist()) == ([3, 4], [900])
    assert put_right(catalog, vector_index, index) == 3


def test_changes_that_still_wait_are_not_reported(house: House) -> None:
    catalog, index, vector_index = house
    job = catalog.jobs.create("notes", "/d").id
    catalog.documents.commit(index, document("/d/b", ["b"]), job_id=job, outcome="added")
    catalog.documents.delete(index, "/d/a", job_id=job)
    assert find(catalog, vector_index, index) == []


def test_one_lost_chunk_is_upserted_again_and_many_mean_a_rebuild(house: House) -> None:
    catalog, index, vector_index = house
    stranger = unit_vectors(40, seed=77)
    vector_index.upsert(index.id, np.array([7]), -vector_index.rows[index.id][7][None, :])
    health = check(catalog, vector_index, index)
    assert (health.lost.tolist(), health.is_damaged) == ([7], False)
    assert put_right(catalog, vector_index, index) == 1
    vector_index.upsert(index.id, np.arange(1, 41), stranger)
    assert check(catalog, vector_index, index).is_damaged
    assert put_right(catalog, vector_index, index) == 40


def test_equal_texts_may_find_each_other(house: House) -> None:
    catalog, index, vector_index = house
    job = catalog.jobs.create("notes", "/d").id
    catalog.documents.commit(index, document("/d/b", ["same"] * 30), job_id=job, outcome="added")
    drain(catalog, vector_index, index)
    assert find(catalog, vector_index, index) == []


def test_an_index_that_is_down_is_an_error_and_no_verdict(house: House) -> None:
    catalog, index, vector_index = house
    vector_index.is_down = True
    with pytest.raises(VectorStoreError):
        check(catalog, vector_index, index)


def test_a_slow_index_is_not_thrown_away(house: House) -> None:
    class Slow(MemoryVectorIndex):
        def ids(self, key: int) -> NDArray[np.int64]:
            raise VectorStoreUnreachableError("timed out")

    catalog, index, _ = house
    with pytest.raises(VectorStoreUnreachableError):
        check(catalog, Slow(), index)


def test_an_index_that_lives_but_cannot_be_read_is_rebuilt(house: House) -> None:
    class Unreadable(MemoryVectorIndex):
        def ids(self, key: int) -> NDArray[np.int64]:
            raise VectorStoreError("failed to apply logs")

    catalog, index, _ = house
    health = check(catalog, Unreadable(), index)
    assert health.is_damaged
    assert repair(catalog, Unreadable(), index, health) == 40


def test_a_stored_vector_that_differs_is_found_and_put_right(house: House) -> None:
    catalog, index, vector_index = house
    wrong = vector_index.rows[index.key][5].copy()
    wrong[0] += np.float32(0.001)
    vector_index.upsert(index.key, np.array([5]), wrong[None, :])
    health = check(catalog, vector_index, index)
    assert (health.differing.tolist(), health.is_damaged) == ([5], False)
    assert put_right(catalog, vector_index, index) == 1
    assert len(check(catalog, vector_index, index).differing) == 0
