"""Which segments are put together when, and how: others read and write meanwhile.

Eight of about one size become one of the next, so a chunk is moved a handful of times at most, and
an index has some dozens of segments whatever its size.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from embedserve.store.database import Database
from embedserve.store.lexical_rows import Segment, add_blocks, add_segment, segments_of, set_removed
from embedserve.store.postings import MOST_CHUNKS, Postings, cut, merge
from embedserve.store.rows import id_list
from embedserve.store.segment_reader import SegmentChunks, blocks_between, chunks_of

FAN = 8
SMALLEST_FAN = 16
SMALLEST = 64
"""Chunks up to which segments are of one size: their fixed costs are most of them."""
LARGE = MOST_CHUNKS // 2
"""Chunks from which a segment stays as it is."""
FEW = 4
"""Smaller segments that an index is left with where nobody writes: each costs a query .2 ms."""
STEP_POSTINGS = 400_000
"""Merged at once, which takes some 20 MB, however large the segments are."""


@dataclass(frozen=True)
class Merged:
    """A segment that may take the place of others."""

    ids: NDArray[np.int64]
    lengths: NDArray[np.float32]
    words: set[str]
    postings: list[Postings]
    moved: dict[int, NDArray[np.int64]]
    """By segment, (chunks,) the place of each in the new one; -1: it is gone."""


def due(segments: Sequence[Segment], *, least_gone: float = 0.5) -> list[Segment]:
    """Return the segments that are to be put together now, the smallest first; none: nothing is.

    One alone is to be written anew without the chunks that are gone, when `least_gone` of it are.
    """
    tiers: dict[int, list[Segment]] = defaultdict(list)
    for segment in sorted(segments, key=lambda segment: segment.live):
        tiers[_tier(segment.live)].append(segment)
    for tier in sorted(tiers):
        if len(tiers[tier]) >= (FAN if tier else SMALLEST_FAN) and tiers[tier][0].live < LARGE:
            return _that_fit(tiers[tier])
    for segment in segments:
        if segment.removed > max(SMALLEST, segment.chunks * least_gone):
            return [segment]
    return []


def scattered(segments: Sequence[Segment]) -> list[Segment]:
    """Return the smallest segments, which are to be one once nobody writes; none: there are few."""
    small = sorted((one for one in segments if one.live < LARGE), key=lambda one: one.live)
    return _that_fit(small[: len(small) - FEW + 1]) if len(small) > FEW else []


def merge_segments(database: Database, index_id: int, chosen: Sequence[Segment]) -> bool:
    """Replace segments by one that holds what is left of them.

    False, and nothing done, when they are not there any more.
    """
    with database.read() as connection:
        merged = prepare(connection, index_id, [segment.id for segment in chosen])
    if merged is None:
        return False
    with database.write() as connection:
        return replace_by(connection, index_id, merged)


def _tier(live: int) -> int:
    return ((live // SMALLEST).bit_length() + 2) // 3  # powers of FAN


def _that_fit(segments: Sequence[Segment]) -> list[Segment]:
    total, fitting = 0, []
    for segment in segments:
        total += segment.live
        if total > MOST_CHUNKS:
            break
        fitting.append(segment)
    return fitting if len(fitting) > 1 else []


def prepare(connection: sqlite3.Connection, index_id: int, wanted: Sequence[int]) -> Merged | None:
    """Put segments together as they are now; None when one is not there."""
    segments = {one.id: one for one in segments_of(connection, index_id) if one.id in set(wanted)}
    if len(segments) != len(wanted):
        return None
    sources, ids, lengths = [], [], []
    words: set[str] = set()
    for id_, chunks, lines in _rows(connection, list(segments)):
        is_live = _live(segments[id_])
        sources.append((id_, chunks.ids, is_live))
        ids.append(chunks.ids[is_live])
        lengths.append(chunks.lengths[is_live])
        words.update(lines.split("\n"))
    every = np.concatenate(ids)
    order = np.argsort(every)
    every = every[order]
    length = np.concatenate(lengths)[order]
    moved = {
        id_: np.where(is_live, every.searchsorted(former), -1) for id_, former, is_live in sources
    }
    steps = 1 + int(length.sum(dtype=np.float64)) // STEP_POSTINGS
    return Merged(every, length, words, list(_postings(connection, moved, steps=steps)), moved)


def _rows(
    connection: sqlite3.Connection, segment_ids: Sequence[int]
) -> Iterator[tuple[int, SegmentChunks, str]]:
    rows = connection.execute(
        "SELECT id, chunks, ids, lengths, words FROM lexical_segments"
        " WHERE id IN (SELECT value FROM json_each(?))",
        (id_list(segment_ids),),
    )
    for id_, count, ids, lengths, words in rows:
        yield id_, chunks_of(count, ids, lengths, np.empty(0, np.int64)), words


def _live(segment: Segment) -> NDArray[np.bool_]:
    gone = segment.gone()
    return np.ones(segment.chunks, np.bool_) if gone is None else ~gone


def _postings(
    connection: sqlite3.Connection, moved: dict[int, NDArray[np.int64]], *, steps: int
) -> Iterator[Postings]:
    """Merge the terms in steps, by ranges of their keys, which are spread evenly."""
    edges = [(step << 64) // steps - (1 << 63) for step in range(steps + 1)]
    for first, after in pairwise(edges):
        blocks = list(blocks_between(connection, list(moved), first, after - 1))
        if blocks:
            parts = [cut(block, first, after - 1) if steps > 1 else block for _, block in blocks]
            yield merge(parts, [moved[segment_id] for segment_id, _ in blocks])


def replace_by(connection: sqlite3.Connection, index_id: int, merged: Merged) -> bool:
    """Let a segment take the place of others, inside the caller's transaction.

    Chunks that were removed since then are removed from it too. False, and nothing done, when one
    of the others is not there any more.
    """
    present = {segment.id: segment for segment in segments_of(connection, index_id)}
    if not merged.moved.keys() <= present.keys():
        return False
    gone = np.zeros(len(merged.ids), np.bool_)
    for id_, moved in merged.moved.items():  # what was removed while they were merged
        gone[moved[(moved >= 0) & ~_live(present[id_])]] = True
        connection.execute("DELETE FROM lexical_segments WHERE id = ?", (id_,))
    if gone.all():
        return True
    segment_id = add_segment(connection, index_id, merged.ids, merged.lengths, merged.words)
    for postings in merged.postings:
        add_blocks(connection, segment_id, postings)
    if gone.any():
        set_removed(connection, segment_id, gone)
    return True
