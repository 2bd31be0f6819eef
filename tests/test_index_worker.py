"""The worker between catalog and vector index: what fails, what is lost, what is deleted."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread, Timer

import numpy as np
import pytest
from numpy.typing import NDArray

from embedserve.bootstrap.house import open_house
from embedserve.errors import (
    CatalogError,
    VectorStoreError,
    VectorStoreRefusedError,
    VectorStoreUnreachableError,
)
from embedserve.services.index_worker import IndexWorker
from embedserve.settings import Settings
from embedserve.store.catalog import Catalog
from embedserve.types import Index, Vectors
from tests.fakes import MemoryVectorIndex
from tests.store_samples import ARTEFACT, DIMENSIONS, catalog_with_index, document, wait_until

House = tuple[Catalog, Index, Index]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Give a catalog with the indexes `notes`, which comes second, and `letters`."""
    with catalog_with_index(tmp_path) as (catalog, notes, _):
        letters = catalog.indexes.create(
            "letters", "{}", model="m", artefact=ARTEFACT, dimensions=DIMENSIONS
        )
        yield catalog, notes, letters


@contextmanager
def working(
    catalog: Catalog, vector_index: MemoryVectorIndex, *, check: bool = False
) -> Iterator[IndexWorker]:
    worker = IndexWorker(catalog, vector_index)
    worker.start(check=check)
    try:
        yield worker
        assert worker.is_alive
    finally:
        worker.stop()
    assert not worker.is_alive


def add(catalog: Catalog, index: Index, path: str, *texts: str) -> list[int]:
    """Commit a document and return the ids of its chunks."""
    job = catalog.jobs.create(index.name, "/d").id
    catalog.documents.commit(index, document(path, list(texts)), job_id=job, outcome="added")
    found = catalog.chunks.by_id(index.id, catalog.chunks.ids(index.id).tolist())
    return sorted(id_ for id_, chunk in found.items() if chunk.path == path)


def damage(catalog: Catalog, text: str) -> None:
    [text_hash] = document("/", [text]).text_hashes
    with catalog._database.write() as connection:
        connection.execute("UPDATE vectors SET vector = x'00' WHERE text_hash = ?", (text_hash,))


def stored(vector_index: MemoryVectorIndex, index: Index) -> list[int]:
    return sorted(vector_index.rows.get(index.id, {}))


def test_what_is_committed_arrives(house: House) -> None:
    catalog, notes, letters = house
    vector_index = MemoryVectorIndex()
    with working(catalog, vector_index) as worker:
        ids = add(catalog, notes, "/d/a", "x", "y")
        assert worker.wait_until_applied(notes.id, 10)
        assert stored(vector_index, notes) == ids
        assert worker.is_ready(notes.id)
        wait_until(lambda: worker.is_ready(letters.id), within_s=5)
        assert worker.problems() == {}


def test_a_damaged_vector_stops_its_own_index_only_and_is_named(house: House) -> None:
    catalog, notes, letters = house
    add(catalog, letters, "/d/broken", "broken")
    damage(catalog, "broken")
    vector_index = MemoryVectorIndex()
    with working(catalog, vector_index) as worker:
        ids = add(catalog, notes, "/d/a", "x")
        assert worker.wait_until_applied(notes.id, 10)
        assert stored(vector_index, notes) == ids
        wait_until(lambda: worker.problems(), within_s=5)
        assert list(worker.problems()) == [letters.id]
        assert "`letters` has a damaged vector" in worker.problems()[letters.id]
        assert not worker.wait_until_applied(letters.id, 0.1)
        add(catalog, letters, "/d/broken", "broken")  # embedded again, so mended
        assert worker.wait_until_applied(letters.id, 10)
        wait_until(lambda: not worker.problems(), within_s=5)


@pytest.mark.parametrize(
    "failure",
    [VectorStoreError("refused"), VectorStoreUnreachableError("timed out"), TypeError("a bug"),
     CatalogError("full"), MemoryError()],
)  # fmt: skip
def test_one_index_that_fails_leaves_the_others_and_the_thread_alone(
    house: House, failure: Exception
) -> None:
    catalog, notes, letters = house
    vector_index = MemoryVectorIndex()
    vector_index.failures[letters.id] = failure
    with working(catalog, vector_index) as worker:
        first, second = add(catalog, letters, "/d/b", "y"), add(catalog, notes, "/d/a", "x")
        assert worker.wait_until_applied(notes.id, 10)
        assert stored(vector_index, notes) == second
        wait_until(lambda: worker.problems(), within_s=5)
        assert list(worker.problems()) == [letters.id]
        assert not worker.is_ready(letters.id)
        wait_until(lambda: worker.is_ready(notes.id), within_s=5)
        del vector_index.failures[letters.id]
        assert worker.wait_until_applied(letters.id, 10)
        assert stored(vector_index, letters) == first
        wait_until(lambda: not worker.problems(), within_s=5)


@pytest.mark.parametrize(
    ("failure", "is_told"),
    [(VectorStoreRefusedError("stores nothing"), True), (VectorStoreError("refused"), False)],
)
def test_who_may_start_the_vector_index_anew_is_told_that_it_stores_nothing(
    house: House, failure: Exception, is_told: bool
) -> None:
    catalog, notes, _ = house
    vector_index = MemoryVectorIndex()
    vector_index.failures[notes.id] = failure
    told = Event()
    worker = IndexWorker(catalog, vector_index)
    worker.on_refusal = told.set
    add(catalog, notes, "/d/a", "x")
    worker.start(check=False)
    try:
        wait_until(lambda: worker._failures and worker._failures[notes.id].count > 2, within_s=10)
        assert told.is_set() is is_told
    finally:
        worker.stop()


def test_a_failing_index_is_not_tried_without_pause(house: House) -> None:
    class Counted(MemoryVectorIndex):
        calls = 0

        def count(self, key: int) -> int:
            self.calls += key == letters.id
            return super().count(key)

    catalog, notes, letters = house
    vector_index = Counted()
    vector_index.failures[letters.id] = VectorStoreError("refused")
    with working(catalog, vector_index) as worker:
        for number in range(50):
            add(catalog, notes, f"/d/{number}", "x")
            assert worker.wait_until_applied(notes.id, 10)
    assert 1 <= vector_index.calls < 15


def test_an_outage_of_everything_ends_with_everything_checked(house: House) -> None:
    catalog, notes, letters = house
    vector_index = MemoryVectorIndex()
    expected = [add(catalog, letters, "/d/b", "y"), add(catalog, notes, "/d/a", "x")]
    with working(catalog, vector_index) as worker:
        wait_until(lambda: all(worker.is_ready(i.id) for i in (notes, letters)), within_s=5)
        assert worker.wait_until_applied(notes.id, 10)
        vector_index.is_down = True
        add(catalog, letters, "/d/c", "z")
        worker.wake()
        worker.hurry()
        # The other index was not asked for; it may have lost something all the same.
        wait_until(lambda: not worker.is_ready(notes.id), within_s=5)
        vector_index.rows.clear()
        vector_index.is_down = False
        wait_until(lambda: stored(vector_index, notes) == expected[1], within_s=20)
        wait_until(lambda: len(stored(vector_index, letters)) == 2, within_s=20)


def test_a_doubt_about_one_index_leaves_the_others_ready(house: House) -> None:
    class Gated(MemoryVectorIndex):
        checked: set[int]

        def ids(self, key: int) -> NDArray[np.int64]:
            self.checked.add(key)
            assert gate.wait(10)
            return super().ids(key)

    catalog, notes, letters = house
    ids = add(catalog, letters, "/d/b", "y")
    gate = Event()
    gate.set()
    vector_index = Gated()
    vector_index.checked = set()
    with working(catalog, vector_index) as worker:
        assert worker.wait_until_applied(letters.id, 10)
        wait_until(lambda: all(worker.is_ready(i.id) for i in (notes, letters)), within_s=5)
        gate.clear()
        vector_index.checked.clear()
        vector_index.rows.clear()
        worker.suspect(letters.id)
        assert not worker.is_ready(letters.id)
        assert worker.is_ready(notes.id)
        gate.set()
        wait_until(lambda: stored(vector_index, letters) == ids, within_s=5)
        wait_until(lambda: worker.is_ready(letters.id), within_s=5)
        assert vector_index.checked == {letters.id}
        worker.suspect()
        wait_until(lambda: vector_index.checked == {letters.id, notes.id}, within_s=5)


def test_an_index_deleted_while_it_is_applied_leaves_nothing_behind(house: House) -> None:
    class Slow(MemoryVectorIndex):
        def upsert(self, key: int, ids: NDArray[np.int64], vectors: Vectors) -> None:
            has_begun.set()
            assert gate.wait(10)
            super().upsert(key, ids, vectors)

    catalog, notes, _ = house
    has_begun, gate = Event(), Event()
    vector_index = Slow()
    with working(catalog, vector_index) as worker:
        add(catalog, notes, "/d/a", "x")
        worker.wake()
        assert has_begun.wait(5)
        catalog.indexes.delete("notes")
        worker.wake()
        worker.hurry()
        gate.set()
        wait_until(lambda: catalog.generations.dropped() == [], within_s=5)
        assert notes.id not in vector_index.rows


def test_what_was_noted_of_a_dead_key_is_forgotten(house: House) -> None:
    catalog, notes, letters = house
    with working(catalog, MemoryVectorIndex()) as worker:
        wait_until(lambda: worker.is_ready(letters.id), within_s=5)
        building = catalog.generations.begin(notes)
        catalog.indexes.delete("notes")
        catalog.generations.give_up(building.key)
        worker.suspect(notes.id)  # a query that had begun before
        wait_until(lambda: catalog.generations.dropped() == [], within_s=5)
        worker.wake()
        wait_until(lambda: list(worker._losses) == [], within_s=5)
        wait_until(lambda: worker.is_ready(letters.id), within_s=5)


def test_an_index_deleted_during_an_outage_is_dropped_after_it(house: House) -> None:
    catalog, notes, letters = house
    vector_index = MemoryVectorIndex()
    with working(catalog, vector_index) as worker:
        add(catalog, notes, "/d/a", "x")
        assert worker.wait_until_applied(notes.id, 10)
        vector_index.is_down = True
        catalog.indexes.delete("notes")
        worker.wake()
    assert catalog.generations.dropped() == [notes.id]
    vector_index.is_down = False
    with working(catalog, vector_index) as worker:
        wait_until(lambda: catalog.generations.dropped() == [], within_s=10)
        assert notes.id not in vector_index.rows
        assert worker.wait_until_applied(letters.id, 5)
        assert worker.problems() == {}


def test_a_wait_ends_at_once_when_it_is_interrupted(house: House) -> None:
    catalog, notes, _ = house
    vector_index = MemoryVectorIndex()
    vector_index.is_down = True
    add(catalog, notes, "/d/a", "x")
    is_interrupted = Event()
    with working(catalog, vector_index) as worker:
        Timer(0.3, is_interrupted.set).start()
        started = time.monotonic()
        assert not worker.wait_until_applied(notes.id, 30, is_interrupted=is_interrupted.is_set)
        assert time.monotonic() - started < 1
        assert not worker.wait_until_applied(notes.id, 0.2)


def test_waiting_does_not_hold_up_those_who_wake(house: House) -> None:
    catalog, notes, _ = house
    vector_index = MemoryVectorIndex()
    vector_index.is_down = True
    add(catalog, notes, "/d/a", "x")
    worker = IndexWorker(catalog, vector_index)
    is_asked, gate = Event(), Event()

    def question() -> bool:
        is_asked.set()
        return gate.wait(10)

    waiter = Thread(target=lambda: worker.wait_until_applied(notes.id, 30, is_interrupted=question))
    waiter.start()
    assert is_asked.wait(5)
    waker = Thread(target=worker.wake)
    waker.start()
    waker.join(2)
    assert not waker.is_alive()
    gate.set()
    waiter.join(5)


def test_a_house_whose_chroma_is_damaged_at_its_first_start_comes_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "home" / "chroma"
    folder.mkdir(parents=True)
    (folder / "chroma.sqlite3").write_bytes(b"damaged" * 1000)
    settings = Settings(home=tmp_path / "home", log_level="error")
    with open_house(settings) as house:
        health = house.services.health
        wait_until(lambda: health.readiness()["vector_index"] == "ok", within_s=30)
    assert "a listener failed" not in caplog.text
