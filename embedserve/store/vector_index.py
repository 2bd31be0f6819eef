"""The contract of a vector index and the table of those that exist.

It is derived from the catalog: it may lose anything at any time, and `repair` puts it right.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedserve.registry import Registry
from embedserve.types import ChunkVectors, ScoredIds, Vectors


class VectorIndex(Protocol):
    """Nearest vectors by cosine. `key` is `Index.key`; every method raises VectorStoreError.

    For want of any answer that is VectorStoreUnreachableError: it is no sign of damage. Safe to
    call from many threads. A method on a key that holds nothing is not an error.
    """

    def upsert(self, key: int, ids: NDArray[np.int64], vectors: Vectors) -> None:
        """Store one unit-length (dimensions,) float32 row for each id, replacing what it had."""
        ...

    def delete(self, key: int, ids: Sequence[int]) -> None:
        """Forget these ids; those that are not there do not matter."""
        ...

    def search(self, key: int, vector: NDArray[np.float32], *, count: int) -> ScoredIds:
        """Return up to `count` nearest ids, best first; the score is cosine, -1..1."""
        ...

    def count(self, key: int) -> int:
        """Count the ids that are stored."""
        ...

    def ids(self, key: int) -> NDArray[np.int64]:
        """Return every id that is stored, ascending."""
        ...

    def vectors(self, key: int, ids: NDArray[np.int64]) -> ChunkVectors:
        """Return those of these ids that are stored, ascending, with their vectors."""
        ...

    def drop(self, key: int) -> None:
        """Forget everything under this key."""
        ...

    def close(self) -> None:
        """Close connections; the next call opens them again."""
        ...


class VectorIndexFactory(Protocol):
    """What the table holds: something that makes a vector index from an address."""

    def __call__(self, url: Callable[[], str], *, timeout_s: float, prefix: str) -> VectorIndex:
        """Make the index; must not fail because its server is down.

        `url` is asked again each time: a server that was restarted may have moved. `prefix`
        keeps apart the catalogs that share one server.
        """
        ...


def probe(vector_index: VectorIndex) -> None:
    """Return when the vector index answers; raise VectorStoreError when it does not."""
    vector_index.count(0)  # no generation has that key


VECTOR_INDEXES: Registry[VectorIndexFactory] = Registry(
    "vector_index", {"chroma": "embedserve.store.chroma:ChromaIndex"}
)
