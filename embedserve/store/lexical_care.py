"""Full text put right: chunks that wait are indexed in steps, what differs is found and mended."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedserve.errors import CatalogError
from embedserve.store.database import Database
from embedserve.store.lexical_rows import (
    MOST_AT_ONCE,
    TEXTS,
    add_by_id,
    add_chunks,
    begin_anew,
    read_texts,
    remove_chunks,
    segments_of,
)
from embedserve.store.postings import MOST_TIMES, Postings, from_block
from embedserve.store.representatives import FIRST_IDS, IS_FIRST
from embedserve.store.rows import Row
from embedserve.store.segment_reader import load_chunks
from embedserve.store.words import TextTerms

STEP = 1000
"""Chunks that are indexed at once, of those that wait: some tenths of a second, nobody is kept."""

NEXT_TEXTS = (
    f"{TEXTS} WHERE c.index_id = ? AND c.id BETWEEN ? AND ? AND {IS_FIRST} ORDER BY c.id LIMIT ?"
)
FIRST_BETWEEN = (
    f"SELECT c.id FROM chunks c WHERE c.index_id = ? AND c.id BETWEEN ? AND ? AND {IS_FIRST}"
)

# The chunks that a segment should have.
EXPECTED = f"""
SELECT id FROM ({FIRST_IDS})
WHERE NOT EXISTS (SELECT 1 FROM lexical_pending
  WHERE index_id = ? AND id BETWEEN first_id AND last_id) ORDER BY id
"""


@dataclass(frozen=True)
class LexicalHealth:
    """What is wrong with the full text of an index."""

    missing: NDArray[np.int64]
    """Chunks that stand for their text and are in no segment, ascending."""
    extra: NDArray[np.int64]
    """Chunks of a segment that are no more, or stand for no text."""
    damaged: tuple[str, ...]
    """What cannot be read, in words."""

    @property
    def is_sound(self) -> bool:
        """Tell whether nothing is wrong."""
        return not (len(self.missing) or len(self.extra) or self.damaged)


@dataclass(frozen=True)
class _Step:
    first_id: int
    last_id: int
    """Of the chunks that wait."""
    to_id: int
    """The last one that this step looks at."""
    ids: list[int]
    terms: TextTerms


def index_pending(database: Database, index_id: int, *, limit: int = STEP) -> bool:
    """Index some of the chunks that wait for it; False when none do."""
    with database.read() as connection:
        step = _next_step(connection, index_id, limit)
    if step is None:
        return False
    with database.write() as connection:
        _take(connection, index_id, step)
    return True


def look(database: Database, index_id: int) -> LexicalHealth:
    """Compare what is indexed with the chunks, and read every block."""
    with database.read() as connection:
        damaged = _damaged(connection, index_id)
        if damaged:
            nothing = np.empty(0, np.int64)
            return LexicalHealth(nothing, nothing, tuple(damaged))
        missing, extra = _differing(connection, index_id)
    return LexicalHealth(missing, extra, ())


def reconcile(connection: sqlite3.Connection, index_id: int) -> None:
    """Index what is missing, take out what is too much, inside the caller's transaction."""
    missing, extra = _differing(connection, index_id)
    if len(missing) + len(extra) > MOST_AT_ONCE:
        begin_anew(connection, index_id)
        return
    remove_chunks(connection, index_id, extra.tolist())
    add_by_id(connection, index_id, missing.tolist())


def _next_step(connection: sqlite3.Connection, index_id: int, limit: int) -> _Step | None:
    row = connection.execute(
        "SELECT p.first_id, p.last_id, i.language FROM lexical_pending p"
        " JOIN indexes i ON i.id = p.index_id WHERE p.index_id = ? ORDER BY p.first_id LIMIT 1",
        (index_id,),
    ).fetchone()
    if row is None:
        return None
    first_id, last_id, language = row
    rows = connection.execute(NEXT_TEXTS, (index_id, first_id, last_id, limit)).fetchall()
    to_id = rows[-1][0] if len(rows) == limit else last_id
    terms = read_texts(language, ((title, json.loads(head), text) for _, title, head, text in rows))
    return _Step(first_id, last_id, to_id, [row[0] for row in rows], terms)


def _take(connection: sqlite3.Connection, index_id: int, step: _Step) -> None:
    """Index the chunks of a step as they are by now; nothing when all began anew meanwhile."""
    present = connection.execute(
        "SELECT i.language FROM lexical_pending p JOIN indexes i ON i.id = p.index_id"
        " WHERE p.index_id = ? AND p.first_id = ?",
        (index_id, step.first_id),
    ).fetchone()
    if present != (step.terms.language,):
        return
    connection.execute(
        "DELETE FROM lexical_pending WHERE index_id = ? AND first_id = ?",
        (index_id, step.first_id),
    )
    if step.to_id < step.last_id:
        connection.execute(
            "INSERT INTO lexical_pending VALUES (?, ?, ?)",
            (index_id, step.to_id + 1, step.last_id),
        )
    between = (index_id, step.first_id, step.to_id)
    first = np.array(_ids(connection, FIRST_BETWEEN, between), np.int64)
    is_first = np.isin(np.array(step.ids, np.int64), first)
    if is_first.all() and len(step.ids):
        add_chunks(connection, index_id, np.array(step.ids, np.int64), step.terms)
        first = np.setdiff1d(first, step.ids)
    add_by_id(connection, index_id, first.tolist())


def _differing(
    connection: sqlite3.Connection, index_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ids that are missing and those that are too much."""
    expected = np.array(_ids(connection, EXPECTED, (index_id, index_id)), np.int64)
    stored = [np.empty(0, np.int64)]
    for segment in segments_of(connection, index_id):
        ids, gone = load_chunks(connection, segment).ids, segment.gone()
        stored.append(ids if gone is None else ids[~gone])
    present = np.concatenate(stored)
    extra = np.setdiff1d(present, expected)
    return np.setdiff1d(expected, present), extra


def _damaged(connection: sqlite3.Connection, index_id: int) -> list[str]:
    found = []
    for segment in segments_of(connection, index_id):
        try:
            lengths = load_chunks(connection, segment).lengths
            counted = np.zeros(segment.chunks)
            rows = connection.execute(
                "SELECT postings FROM lexical_blocks WHERE segment_id = ?", (segment.id,)
            )
            for (block,) in rows:
                counted += _counted(from_block(block), segment.chunks)
        except CatalogError as error:
            found.append(f"segment {segment.id}: {error.message}")
            continue
        # A term that stands in a chunk more often than MOST_TIMES is not counted further.
        if np.any(counted > lengths) or np.any(counted < np.minimum(lengths, MOST_TIMES)):
            found.append(f"segment {segment.id} lacks terms of its chunks, or has too many")
    return found


def _counted(postings: Postings, chunks: int) -> NDArray[Any]:
    return np.bincount(postings.places, postings.times, minlength=chunks)[:chunks]


def _ids(connection: sqlite3.Connection, query: str, values: Row) -> Sequence[int]:
    return [row[0] for row in connection.execute(query, values)]
