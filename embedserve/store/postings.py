"""Which terms stand in which chunks of a segment, how often: arrays, and how they are stored.

A segment is a set of chunks that never changes. Its chunks have places, from 0 in order of their
ids; its terms have keys (store/words.py) and are cut into blocks that are read one by one.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedserve.errors import CatalogError

MOST_CHUNKS = 1 << 16  # of a segment: a place takes two bytes
MOST_TIMES = 255
"""How often a term counts in one chunk: beyond it a score of BM25 does not move any more."""
BLOCK_POSTINGS = 12_000
"""Of a block, unless one term alone has more: with its terms some 60 kB, read in .1 ms."""

_HEAD = np.dtype([("checksum", "<u4"), ("terms", "<u4")])
_PLACE_BITS, _TIMES_BITS = 16, 8


@dataclass(frozen=True)
class Postings:
    """Terms in order of their keys, and for each the chunks that it stands in, in order."""

    keys: NDArray[np.int64]
    """(terms,)"""
    ends: NDArray[np.int64]
    """(terms,) where the chunks of each term end in the next two."""
    places: NDArray[np.uint16]
    """(postings,)"""
    times: NDArray[np.uint8]
    """(postings,) how often the term stands in the chunk."""

    def find(self, key: int) -> slice | None:
        """Return where the chunks of a term are, or None: it is not here."""
        at = int(self.keys.searchsorted(key))
        if at == len(self.keys) or self.keys[at] != key:
            return None
        return slice(self.ends[at - 1] if at else 0, self.ends[at])

    @property
    def counts(self) -> NDArray[np.int64]:
        """Return in how many chunks each term stands: (terms,)."""
        counts = self.ends.copy()
        counts[1:] -= self.ends[:-1]
        return counts

    @property
    def size_bytes(self) -> int:
        """Return what the arrays take in memory."""
        return sum(array.nbytes for array in (self.keys, self.ends, self.places, self.times))


def invert(keys: NDArray[np.int64], places: NDArray[np.int64]) -> Postings:
    """Build postings from every occurrence of a term: its key and the place of its chunk."""
    distinct, term = np.unique(keys, return_inverse=True)
    occurrence = np.sort((term << _PLACE_BITS) | places)
    is_first = np.ones(len(occurrence), np.bool_)
    np.not_equal(occurrence[1:], occurrence[:-1], out=is_first[1:])
    first = np.flatnonzero(is_first)
    times = np.minimum(np.append(first[1:], len(occurrence)) - first, MOST_TIMES)
    return _from_packed(distinct, (occurrence[first] << _TIMES_BITS) | times)


def merge(parts: Sequence[Postings], moved: Sequence[NDArray[np.int64]]) -> Postings:
    """Put postings of several segments together.

    `moved` gives for each part the new place of each of its places, -1 for a chunk that is gone.
    """
    keys = np.concatenate([part.keys for part in parts])
    distinct, term = np.unique(keys, return_inverse=True)
    counts = np.concatenate([part.counts for part in parts])
    starts = np.cumsum([0, *(len(places) for places in moved[:-1])])
    start = np.repeat(starts, [len(part.places) for part in parts])
    places = np.concatenate([part.places for part in parts])
    place = np.concatenate(moved)[start + places]
    packed = (((np.repeat(term, counts) << _PLACE_BITS) | place) << _TIMES_BITS) | np.concatenate(
        [part.times for part in parts]
    )
    return _from_packed(distinct, np.sort(packed[place >= 0]))


def cut(postings: Postings, first: int, last: int) -> Postings:
    """Return the terms with keys from `first` to `last`, both included."""
    start, end = postings.keys.searchsorted([first, last + 1]) if last < _MOST_KEY else (
        postings.keys.searchsorted(first), len(postings.keys)
    )  # fmt: skip
    return _between(postings, int(start), int(end))


def to_blocks(postings: Postings) -> Iterator[tuple[int, bytes]]:
    """Give postings in blocks: the key of the first term, and the block."""
    start = 0
    while start < len(postings.keys):
        before = int(postings.ends[start - 1]) if start else 0
        end = int(postings.ends.searchsorted(before + BLOCK_POSTINGS, side="right"))
        end = max(start + 1, end)
        yield int(postings.keys[start]), _packed(_between(postings, start, end))
        start = end


def from_block(block: bytes) -> Postings:
    """Read a block; raise CatalogError for a damaged one."""
    head = np.frombuffer(block, _HEAD, 1)[0] if len(block) >= _HEAD.itemsize else None
    body = memoryview(block)[_HEAD.itemsize :]
    if head is None or zlib.crc32(body) != head["checksum"]:
        raise CatalogError(
            "A block of the full-text index is damaged in the catalog. Repair it: "
            "`embedserve index check NAME --repair`."
        )
    terms = int(head["terms"])
    count = (len(body) - terms * 12) // 3
    return Postings(
        np.frombuffer(body, "<i8", terms),
        np.frombuffer(body, "<u4", terms, terms * 8).astype(np.int64),
        np.frombuffer(body, "<u2", count, terms * 12),
        np.frombuffer(body, np.uint8, count, terms * 12 + count * 2),
    )


_MOST_KEY = (1 << 63) - 1


def _packed(postings: Postings) -> bytes:
    body = b"".join(
        (
            postings.keys.astype("<i8", copy=False).tobytes(),
            postings.ends.astype("<u4").tobytes(),
            postings.places.astype("<u2", copy=False).tobytes(),
            postings.times.tobytes(),
        )
    )
    return np.array([(zlib.crc32(body), len(postings.keys))], _HEAD).tobytes() + body


def _between(postings: Postings, start: int, end: int) -> Postings:
    first = int(postings.ends[start - 1]) if start else 0
    last = int(postings.ends[end - 1]) if end else 0
    rows = slice(first, max(first, last))
    ends = postings.ends[start:end] - first
    return Postings(postings.keys[start:end], ends, postings.places[rows], postings.times[rows])


def _from_packed(keys: NDArray[np.int64], packed: NDArray[np.int64]) -> Postings:
    """Build postings of (term, place, times), sorted; terms that stand nowhere are left out."""
    counts = np.bincount(packed >> (_PLACE_BITS + _TIMES_BITS), minlength=len(keys))
    is_there = counts > 0
    return Postings(
        keys[is_there],
        np.cumsum(counts[is_there]),
        ((packed >> _TIMES_BITS) & (MOST_CHUNKS - 1)).astype(np.uint16),
        (packed & MOST_TIMES).astype(np.uint8),
    )
