"""Segments of the full-text index as arrays: what a query or a merge reads of them."""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedserve.errors import CatalogError
from embedserve.store.lexical_rows import Segment
from embedserve.store.postings import Postings, from_block
from embedserve.store.rows import id_list
from embedserve.store.segment_cache import SegmentCache


@dataclass(frozen=True)
class SegmentChunks:
    """The chunks of a segment, by place, and where its blocks begin."""

    ids: NDArray[np.int64]
    lengths: NDArray[np.float32]
    first_keys: NDArray[np.int64]

    @property
    def size_bytes(self) -> int:
        """Return what the arrays take in memory."""
        return self.ids.nbytes + self.lengths.nbytes + self.first_keys.nbytes


@dataclass(frozen=True)
class Matches:
    """The chunks of a segment in which a term of a query stands."""

    term: int
    """Its number in the query."""
    places: NDArray[np.uint16]
    times: NDArray[np.uint8]


class SegmentReader:
    """Read segments through one connection, and keep what was read for the next."""

    def __init__(self, connection: sqlite3.Connection, cache: SegmentCache) -> None:
        self._connection = connection
        self._cache = cache

    def chunks(self, segment: Segment) -> SegmentChunks:
        """Return the chunks of a segment."""
        return self._cache.get((segment.id, None), lambda: load_chunks(self._connection, segment))

    def matches(self, segment: Segment, keys: NDArray[np.int64]) -> Iterator[Matches]:
        """Give where the terms of a query, of which there are some, stand in a segment."""
        first_keys = self.chunks(segment).first_keys
        # Few terms: one by one they take a third of what arrays of them do.
        places = (first_keys.searchsorted(keys, side="right") - 1).tolist()
        for term, (key, at) in enumerate(zip(keys.tolist(), places, strict=True)):
            if at >= 0:
                postings = self._block(segment, int(first_keys[at]))
                found = postings.find(key)
                if found is not None:
                    yield Matches(term, postings.places[found], postings.times[found])

    def _block(self, segment: Segment, first_key: int) -> Postings:
        return self._cache.get(
            (segment.id, first_key), lambda: _load_block(self._connection, segment.id, first_key)
        )


def load_chunks(connection: sqlite3.Connection, segment: Segment) -> SegmentChunks:
    """Read the chunks of a segment; raise CatalogError when they are damaged."""
    ids, lengths = connection.execute(
        "SELECT ids, lengths FROM lexical_segments WHERE id = ?", (segment.id,)
    ).fetchone()
    keys = connection.execute(
        "SELECT first_key FROM lexical_blocks WHERE segment_id = ? ORDER BY first_key",
        (segment.id,),
    )
    first_keys = np.fromiter((row[0] for row in keys), np.int64)
    return chunks_of(segment.chunks, ids, lengths, first_keys)


def chunks_of(
    count: int, ids: bytes, lengths: bytes, first_keys: NDArray[np.int64]
) -> SegmentChunks:
    """Unpack `count` chunks; raise CatalogError when they are damaged."""
    if (len(ids), len(lengths)) != (count * 8, count * 4):
        raise CatalogError(
            "A segment of the full-text index is damaged in the catalog. Repair it: "
            "`embedserve index check NAME --repair`."
        )
    return SegmentChunks(
        np.frombuffer(ids, "<i8"), np.frombuffer(lengths, "<u4").astype(np.float32), first_keys
    )


def blocks_between(
    connection: sqlite3.Connection, segment_ids: Sequence[int], first: int, last: int
) -> Iterator[tuple[int, Postings]]:
    """Give the blocks of segments that may hold keys from `first` to `last`, with their segment."""
    rows = connection.execute(
        "SELECT b.segment_id, b.postings FROM json_each(?) wanted JOIN lexical_blocks b"
        " ON b.segment_id = wanted.value AND b.first_key BETWEEN coalesce("
        "   (SELECT max(first_key) FROM lexical_blocks"
        "    WHERE segment_id = wanted.value AND first_key <= ?), ?) AND ?",
        (id_list(segment_ids), first, first, last),
    )
    for segment_id, block in rows:
        yield segment_id, from_block(block)


def _load_block(connection: sqlite3.Connection, segment_id: int, first_key: int) -> Postings:
    [block] = connection.execute(
        "SELECT postings FROM lexical_blocks WHERE segment_id = ? AND first_key = ?",
        (segment_id, first_key),
    ).fetchone()
    return from_block(block)
