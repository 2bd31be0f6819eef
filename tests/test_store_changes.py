from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedserve.store.catalog import Catalog
from embedserve.types import Index
from tests.store_samples import catalog_with_index, document

House = tuple[Catalog, Index, str]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with catalog_with_index(tmp_path) as opened:
        yield opened


def test_the_log_is_drained_in_order_and_forgotten_when_acknowledged(house: House) -> None:
    catalog, index, job = house
    version = document("/d/a", [f"text {n}" for n in range(5)])
    catalog.documents.commit(index, version, job_id=job, outcome="added")
    first = catalog.changes.pending(index, limit=3)
    assert first is not None
    assert np.array_equal(first.upserts.vectors, version.vectors[:3])
    assert catalog.indexes.counts(index.id).pending == 5
    catalog.changes.acknowledge(index.id, first.up_to)
    second = catalog.changes.pending(index)
    assert second is not None
    assert np.array_equal(second.upserts.vectors, version.vectors[3:])
    catalog.changes.acknowledge(index.id, second.up_to)
    assert catalog.changes.pending(index) is None


def test_a_delete_after_its_upsert_is_only_a_delete(house: House) -> None:
    catalog, index, job = house
    catalog.documents.commit(index, document("/d/a", ["x"]), job_id=job, outcome="added")
    [old] = catalog.chunks.ids(index.id).tolist()
    catalog.documents.commit(index, document("/d/a", ["y"]), job_id=job, outcome="updated")
    [new] = catalog.chunks.ids(index.id).tolist()
    pending = catalog.changes.pending(index)
    assert pending is not None
    assert (pending.upserts.ids.tolist(), pending.deletes) == ([new], (old,))
    assert catalog.changes.pending_ids(index.id).tolist() == [old, new]


def test_an_upsert_of_a_chunk_that_is_gone_is_left_out(house: House) -> None:
    catalog, index, job = house
    catalog.documents.commit(index, document("/d/a", ["x", "y"]), job_id=job, outcome="added")
    catalog.documents.delete(index, "/d/a", job_id=job)
    half = catalog.changes.pending(index, limit=2)
    assert half is not None
    assert (len(half.upserts.ids), half.deletes) == (0, ())
    catalog.changes.acknowledge(index.id, half.up_to)
    rest = catalog.changes.pending(index)
    assert rest is not None
    assert len(rest.deletes) == 2


def test_what_is_pending_can_be_asked_without_reading_it(house: House) -> None:
    catalog, index, job = house
    assert not catalog.changes.has_pending(index.id)
    catalog.documents.commit(index, document("/d/a", ["x"]), job_id=job, outcome="added")
    assert catalog.changes.has_pending(index.id)
    assert not catalog.changes.has_pending(index.id + 1)


def test_a_deleted_index_is_named_until_its_drop_is_acknowledged(house: House) -> None:
    catalog, index, _ = house
    other = catalog.indexes.create("b", "{}", model="m", artefact=index.artefact, dimensions=8)
    assert catalog.generations.dropped() == []
    catalog.indexes.delete("notes")
    catalog.indexes.delete("b")
    assert catalog.generations.dropped() == [index.id, other.id]
    catalog.generations.acknowledge_drop(index.id)
    assert catalog.generations.dropped() == [other.id]


def test_changes_of_another_index_are_not_seen(house: House) -> None:
    catalog, index, job = house
    other = catalog.indexes.create("b", "{}", model="m", artefact=index.artefact, dimensions=8)
    catalog.documents.commit(other, document("/d/a", ["x"]), job_id=job, outcome="added")
    assert catalog.changes.pending(index) is None
    assert catalog.chunks.by_id(index.id, catalog.chunks.ids(other.id).tolist()) == {}


def test_enqueue_all_asks_once_for_every_live_chunk(house: House) -> None:
    catalog, index, job = house
    catalog.documents.commit(index, document("/d/a", ["x", "y"]), job_id=job, outcome="added")
    assert catalog.changes.enqueue_all(index.id) == 2
    catalog.changes.enqueue_upserts(index.id, [1])
    catalog.changes.enqueue_deletes(index.id, [77])
    assert catalog.indexes.counts(index.id).pending == 4
    pending = catalog.changes.pending(index)
    assert pending is not None
    assert (pending.upserts.ids.tolist(), pending.deletes) == ([1, 2], (77,))
