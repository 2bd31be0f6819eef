"""Stores rows in the vector index, and none again that is there: see `repair.unapplied`."""

from collections.abc import Callable

from embedserve.store.catalog import Catalog
from embedserve.store.repair import unapplied
from embedserve.store.vector_index import VectorIndex
from embedserve.types import ChunkVectors, Index


class RowWriter:
    """For one thread. What it stored is certain until something fails."""

    def __init__(
        self, catalog: Catalog, vector_index: VectorIndex, losses_of: Callable[[int], int]
    ) -> None:
        """`losses_of` numbers the doubts about a key: another number, and rows may be lost."""
        self._catalog = catalog
        self._vector_index = vector_index
        self._losses_of = losses_of
        self._certain: dict[int, int] = {}
        """By `Index.key`, the number at which rows were stored last."""

    def store(self, index: Index, rows: ChunkVectors) -> None:
        """Store rows of an index; the first ones since a doubt may be there already."""
        losses = self._losses_of(index.key)
        if self._certain.get(index.key) != losses and len(rows.ids):
            rows = unapplied(self._catalog, self._vector_index, index, rows)
        if len(rows.ids):
            self._vector_index.upsert(index.key, rows.ids, rows.vectors)
        self._certain[index.key] = losses

    def forget(self, key: int) -> None:
        """Note that a key is no longer there; it never comes again."""
        self._certain.pop(key, None)
