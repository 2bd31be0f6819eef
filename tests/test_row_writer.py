"""Rows of the vector index: stored once, and again only where they differ or cannot be found."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedserve.services.row_writer import RowWriter
from embedserve.store.catalog import Catalog
from embedserve.types import ChunkVectors, Index, ScoredIds, Vectors
from tests.fakes import MemoryVectorIndex
from tests.store_samples import catalog_with_index, document


class Noting(MemoryVectorIndex):
    """Keeps the ids of each call, and hides some from searches."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: list[list[int]] = []
        self.unreachable: set[int] = set()

    def upsert(self, key: int, ids: NDArray[np.int64], vectors: Vectors) -> None:
        self.stored.append(ids.tolist())
        super().upsert(key, ids, vectors)

    def search(self, key: int, vector: NDArray[np.float32], *, count: int) -> ScoredIds:
        found = super().search(key, vector, count=count + len(self.unreachable))
        return found.where(~np.isin(found.ids, [*self.unreachable]))[:count]


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[tuple[Catalog, Index, ChunkVectors]]:
    """An index of four texts, and its vectors."""
    with catalog_with_index(tmp_path) as (catalog, index, job):
        texts = [f"text {number}" for number in range(4)]
        catalog.documents.commit(index, document("/d/a", texts), job_id=job, outcome="added")
        yield catalog, index, catalog.chunks.vectors_after(index, 0, limit=10)


def test_what_is_there_already_is_not_stored_again(
    rows: tuple[Catalog, Index, ChunkVectors],
) -> None:
    catalog, index, every = rows
    vector_index = Noting()
    first, second, third, fourth = every.ids.tolist()
    vector_index.upsert(index.key, every.ids[:3], every.vectors[:3])
    vector_index.rows[index.key][second] = -every.vectors[1]  # another text's
    vector_index.unreachable = {third}
    vector_index.stored.clear()
    writer = RowWriter(catalog, vector_index, lambda _: 0)
    writer.store(index, every)
    assert vector_index.stored == [[second, third, fourth]]
    assert first not in vector_index.stored[0]


def test_after_the_first_batch_nothing_is_asked_until_something_fails(
    rows: tuple[Catalog, Index, ChunkVectors],
) -> None:
    catalog, index, every = rows
    vector_index, losses = Noting(), 0
    writer = RowWriter(catalog, vector_index, lambda _: losses)
    writer.store(index, every)
    writer.store(index, every)
    assert vector_index.stored == [every.ids.tolist()] * 2, "a repair may ask for that"
    losses = 1
    writer.store(index, every)
    assert len(vector_index.stored) == 2
    writer.forget(index.key)
    writer.store(index, every)
    assert len(vector_index.stored) == 2
