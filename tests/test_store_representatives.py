"""One chunk of each text stands in the vector index, whatever happens to its document."""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedserve.store.catalog import Catalog
from embedserve.store.repair import check, repair
from embedserve.types import FoundFile, Index
from tests.fakes import MemoryVectorIndex
from tests.store_samples import catalog_with_index, document, drain, unit_vectors

House = tuple[Catalog, Index, str]
PATHS = [f"/d/{name}" for name in "abcd"]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with catalog_with_index(tmp_path) as opened:
        yield opened


def logged(catalog: Catalog, index: Index) -> tuple[list[int], list[int]]:
    """Return the ids that wait to be upserted and deleted, and take them as applied."""
    pending = catalog.changes.pending(index)
    if pending is None:
        return [], []
    catalog.changes.acknowledge(index.id, pending.up_to)
    return pending.upserts.ids.tolist(), list(pending.deletes)


def test_a_text_is_stored_once_and_the_next_document_takes_over(house: House) -> None:
    catalog, index, job = house
    for path in PATHS[:3]:
        version = document(path, ["same", f"of {path}", "same"])
        catalog.documents.commit(index, version, job_id=job, outcome="added")
    # Ids 1 to 9, three for each document.
    assert logged(catalog, index) == ([1, 2, 5, 8], [])
    assert catalog.indexes.counts(index.id).texts == 4
    catalog.documents.delete(index, PATHS[1], job_id=job)
    assert logged(catalog, index) == ([], [5])
    catalog.documents.delete(index, PATHS[0], job_id=job)
    assert logged(catalog, index) == ([7], [1, 2])
    again = document(PATHS[2], ["same"])
    catalog.documents.commit(index, again, job_id=job, outcome="updated")
    assert logged(catalog, index) == ([10], [7, 8])


def test_the_vector_index_follows_any_changes(house: House) -> None:
    catalog, index, job = house
    vector_index, rng = MemoryVectorIndex(), random.Random(5)
    for _ in range(120):
        path, texts = rng.choice(PATHS), rng.choices("abcdefgh", k=rng.randint(1, 6))
        known = catalog.documents.known_files(index.id, "/d")
        if rng.random() < 0.6:
            catalog.documents.commit(index, document(path, texts), job_id=job, outcome="updated")
        elif rng.random() < 0.6 or path not in known:
            catalog.documents.delete(index, path, job_id=job)
        elif free := [other for other in PATHS if other not in known]:
            catalog.documents.move(index, known[path], FoundFile(free[0], 1, 1), job_id=job)
        if rng.random() < 0.5:
            drain(catalog, vector_index, index)
            assert_in_step(catalog, vector_index, index)


def assert_in_step(catalog: Catalog, vector_index: MemoryVectorIndex, index: Index) -> None:
    live = catalog.chunks.ids(index.id).tolist()
    texts = catalog.chunks.texts(index.id, live, most=99)
    first = sorted({text.chunks[0].id for text in texts.values()})
    assert sorted(texts) == live
    assert sorted(place.id for id_ in first for place in texts[id_].chunks) == live
    assert catalog.chunks.representatives(index.id).tolist() == first
    assert catalog.chunks.vectors_after(index, 0, limit=999).ids.tolist() == first
    assert vector_index.ids(index.key).tolist() == first
    assert catalog.chunks.count_texts(index.id) == len(first)


def test_what_stands_for_nothing_is_removed_and_a_new_representative_kept(house: House) -> None:
    """As in an index from before there were representatives."""
    catalog, index, job = house
    vector_index = MemoryVectorIndex()
    for path in PATHS:
        catalog.documents.commit(index, document(path, ["x", path]), job_id=job, outcome="added")
    drain(catalog, vector_index, index)
    every = catalog.chunks.vectors_of(index, catalog.chunks.ids(index.id).tolist())
    vector_index.upsert(index.key, every.ids, every.vectors)
    health = check(catalog, vector_index, index)
    assert health.extra.tolist() == [3, 5, 7]
    catalog.documents.delete(index, PATHS[0], job_id=job)  # chunk 3 stands for `x` now
    assert repair(catalog, vector_index, index, health) == 3
    drain(catalog, vector_index, index)
    assert_in_step(catalog, vector_index, index)
    assert 3 in vector_index.rows[index.key]


def test_a_repair_asks_for_representatives_only(house: House) -> None:
    catalog, index, job = house
    vector_index = MemoryVectorIndex()
    for path in PATHS:
        catalog.documents.commit(index, document(path, ["x", path]), job_id=job, outcome="added")
    drain(catalog, vector_index, index)
    hashes = document("/d/a", ["x", "/d/b"]).text_hashes
    catalog.integrity.replace_vectors(index, dict(zip(hashes, unit_vectors(2), strict=True)))
    assert logged(catalog, index) == ([1, 4], [])
    assert catalog.changes.enqueue_all(index.id) == 5
    catalog.changes.enqueue_upserts(index.id, np.arange(1, 9).tolist())
    assert logged(catalog, index) == ([1, 2, 4, 6, 8], [])
