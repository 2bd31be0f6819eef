"""A vector index that is made when it is first asked for something.

Chroma's client takes .9 s of processor time to import (docs/decisions.md), and a home without
indexes does not need it.
"""

from collections.abc import Callable, Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from embedserve.store.vector_index import VECTOR_INDEXES, VectorIndex
from embedserve.types import ChunkVectors, ScoredIds, Vectors


class LateVectorIndex:
    """Make the index `name` of the table at the first call; hand every call on to it."""

    def __init__(self, name: str, url: Callable[[], str], *, timeout_s: float, prefix: str) -> None:
        self._make: Callable[[], VectorIndex] = lambda: VECTOR_INDEXES.load(name)(
            url, timeout_s=timeout_s, prefix=prefix
        )
        self._lock = Lock()
        self._made: VectorIndex | None = None

    def load(self) -> None:
        """Make it now: the first call would wait for it."""
        self._index()

    def upsert(self, key: int, ids: NDArray[np.int64], vectors: Vectors) -> None:
        """Store vectors; see `VectorIndex`."""
        self._index().upsert(key, ids, vectors)

    def delete(self, key: int, ids: Sequence[int]) -> None:
        """Forget these ids; see `VectorIndex`."""
        self._index().delete(key, ids)

    def search(self, key: int, vector: NDArray[np.float32], *, count: int) -> ScoredIds:
        """Return the nearest ids; see `VectorIndex`."""
        return self._index().search(key, vector, count=count)

    def count(self, key: int) -> int:
        """Count the stored ids; see `VectorIndex`."""
        return self._index().count(key)

    def ids(self, key: int) -> NDArray[np.int64]:
        """Return every stored id; see `VectorIndex`."""
        return self._index().ids(key)

    def vectors(self, key: int, ids: NDArray[np.int64]) -> ChunkVectors:
        """Return stored vectors; see `VectorIndex`."""
        return self._index().vectors(key, ids)

    def drop(self, key: int) -> None:
        """Forget everything under this key; see `VectorIndex`."""
        self._index().drop(key)

    def close(self) -> None:
        """Close the connections of an index that was made."""
        with self._lock:
            made = self._made
        if made is not None:
            made.close()

    def _index(self) -> VectorIndex:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made
