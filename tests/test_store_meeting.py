"""Which texts meet a condition, and that nothing is remembered beyond a write."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from embedserve.store.database import Database
from embedserve.store.meeting import live
from embedserve.store.snapshot_cache import SnapshotCache
from embedserve.types import SqlCondition
from tests.store_samples import catalog_with_index, document

AT_B = SqlCondition("d.path = ?", ("/b",))


def test_a_text_meets_a_condition_where_any_of_its_chunks_does(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        for path, texts in (("/a", ["both", "only a"]), ("/b", ["only b", "both"])):
            catalog.documents.commit(index, document(path, texts), job_id=job, outcome="added")
        both, only_a, only_b, again = catalog.chunks.ids(index.id).tolist()
        assert catalog.meeting.ids(index.id, AT_B).tolist() == [both, only_b]
        assert catalog.chunks.live(index.id, [only_a, both, only_b, 99], among=AT_B) == [
            both,
            only_b,
        ]
        assert catalog.chunks.live(index.id, [only_a, again, 99]) == [only_a, again]
        assert catalog.chunks.live(index.id + 1, [only_a]) == []
        with catalog._database.read() as connection:
            assert live(connection, index.id, [only_b, both], AT_B) == [only_b, both]


def test_what_meets_a_condition_is_asked_anew_after_a_write(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        catalog.documents.commit(index, document("/b", ["one"]), job_id=job, outcome="added")
        assert catalog.meeting.known(index.id, AT_B) is None
        before = catalog.meeting.ids(index.id, AT_B)
        assert catalog.meeting.known(index.id, AT_B) is before
        assert catalog.meeting.known(index.id, replace(AT_B, values=("/c",))) is None
        catalog.documents.commit(index, document("/b", ["two"]), job_id=job, outcome="updated")
        assert catalog.meeting.known(index.id, AT_B) is None
        after = catalog.meeting.ids(index.id, AT_B)
        assert len(after) == 1
        assert after > before
        catalog.documents.delete(index, "/b", job_id=job)
        assert catalog.meeting.ids(index.id, AT_B).tolist() == []


def test_what_is_read_while_somebody_writes_is_not_kept(tmp_path: Path) -> None:
    database = Database(tmp_path / "catalog.sqlite3")
    cache: SnapshotCache[int] = SnapshotCache(database, most=2)

    def load_beside_a_write() -> int:
        with database.write() as connection:
            connection.execute("INSERT INTO meta (key, value) VALUES ('a', 'b')")
        return 1

    assert cache.get("key", load_beside_a_write) == 1
    assert cache.known("key") is None
    assert cache.get("key", lambda: 2) == 2
    assert cache.known("key") == 2
    for number in (3, 4):
        cache.get(number, lambda number=number: number)  # type: ignore[misc]
    assert [cache.known(key) for key in ("key", 3, 4)] == [None, 3, 4]
    database.close()


def test_many_ids_are_asked_about_at_once(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        texts = [f"text {number}" for number in range(2000)]
        catalog.documents.commit(index, document("/a", texts), job_id=job, outcome="added")
        ids = catalog.chunks.ids(index.id)
        assert catalog.chunks.live(index.id, ids.tolist()) == ids.tolist()
        assert np.array_equal(catalog.meeting.ids(index.id, SqlCondition("1")), ids)
