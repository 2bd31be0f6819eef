"""Finished vectors by the token ids that gave them: bounded in bytes, oldest use first out.

The same ids give the same vector, bit for bit, for one artefact; so a hit is no approximation.
Safe across threads.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from embedserve.types import TokenIds, Vectors

# What an entry takes besides its key and its vector: two objects and a place in the table.
_ENTRY_BYTES = 300


@dataclass(frozen=True)
class CacheCounts:
    """What the cache did since it was made, and holds now."""

    hits: int
    misses: int
    entries: int
    size_bytes: int


class VectorCache:
    """Vectors of all models. With `max_bytes` of 0 it keeps nothing and finds nothing."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rows: OrderedDict[bytes, Vectors] = OrderedDict()
        self._size_bytes = 0
        self._hits = 0
        self._misses = 0
        self._lock = Lock()

    @property
    def is_on(self) -> bool:
        """Tell whether anything can be kept."""
        return self._max_bytes > 0

    def find(self, keys: Sequence[bytes]) -> "list[Vectors | None]":
        """Return the vector of each key, (dimensions,) float32 and not to be changed, or None."""
        with self._lock:
            found = [self._rows.get(key) for key in keys]
            for key, row in zip(keys, found, strict=True):
                if row is not None:
                    self._rows.move_to_end(key)
            hits = sum(row is not None for row in found)
            self._hits += hits
            self._misses += len(keys) - hits
        return found

    def keep(self, keys: Sequence[bytes], rows: Vectors) -> None:
        """Keep a copy of each row of (len(keys), dimensions) float32 as far as there is room."""
        cost = rows.shape[1] * rows.itemsize + _ENTRY_BYTES
        with self._lock:
            for key, row in zip(keys, rows, strict=True):
                if key in self._rows or cost + len(key) > self._max_bytes:
                    continue
                kept = row.copy()
                kept.flags.writeable = False
                self._rows[key] = kept
                self._size_bytes += cost + len(key)
            while self._size_bytes > self._max_bytes:
                key, row = self._rows.popitem(last=False)
                self._size_bytes -= row.nbytes + _ENTRY_BYTES + len(key)

    def counts(self) -> CacheCounts:
        """Return the figures for metrics."""
        with self._lock:
            return CacheCounts(self._hits, self._misses, len(self._rows), self._size_bytes)


def key_of(artefact: str, ids: TokenIds) -> bytes:
    """Return the key of a text: the model's artefact and the ids themselves, so none collide."""
    # Ids fit into 32 bits; half the bytes.
    return artefact[:32].encode() + ids.astype("<u4").tobytes()
