"""Rows of the full-text index that the transactions of other tables write.

Only chunks that stand for their text are in it (store/representatives.py). What is indexed of one
is its text with the title and the headings above it, each once.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedserve.store.postings import MOST_CHUNKS, Postings, invert, to_blocks
from embedserve.store.representatives import FIRST_OF_DOCUMENT, HEIRS_OF_DOCUMENT
from embedserve.store.rows import Row, id_list
from embedserve.store.words import DEFAULT_LANGUAGE, TextTerms, words_of

MOST_AT_ONCE = 10_000
"""Chunks of one document that are indexed in the transaction that brings them, some tenths of a
second for which nobody else writes. Those of a larger one follow in steps."""

TEXTS = """
SELECT c.id, d.title, c.heading, c.text FROM chunks c JOIN documents d ON d.id = c.document_id
"""

IS_PENDING = """
SELECT 1 FROM lexical_pending WHERE index_id = ? AND ? BETWEEN first_id AND last_id
"""


@dataclass(frozen=True)
class Segment:
    """A segment as a query sees it."""

    id: int
    chunks: int
    first_id: int
    last_id: int
    removed: int
    bits: bytes | None
    """The chunks that are gone, a bit each; None: all are there."""

    @property
    def live(self) -> int:
        """Return how many chunks are there."""
        return self.chunks - self.removed

    def gone(self) -> NDArray[np.bool_] | None:
        """Tell of each place whether its chunk is gone; None: all are there."""
        return None if self.bits is None else to_mask(self.bits, self.chunks)


def language_of(definition: str) -> str:
    """Return the language that an index's definition names, as JSON."""
    return str(json.loads(definition).get("language", DEFAULT_LANGUAGE))


def read_texts(language: str, rows: Iterable[tuple[str, Sequence[str], str]]) -> TextTerms:
    """Read chunks: title, headings and text of each."""
    return words_of(language).read(_whole(*row) for row in rows)


def segments_of(connection: sqlite3.Connection, index_id: int) -> list[Segment]:
    """Return the segments of an index, oldest first."""
    rows = connection.execute(
        "SELECT s.id, s.chunks, s.first_id, s.last_id, coalesce(r.chunks, 0), r.bits"
        " FROM lexical_segments s LEFT JOIN lexical_removed r ON r.segment_id = s.id"
        " WHERE s.index_id = ? ORDER BY s.id",
        (index_id,),
    )
    return [Segment(*row) for row in rows]


def add_document(
    connection: sqlite3.Connection, index_id: int, document_id: int, terms: TextTerms | None
) -> None:
    """Index the chunks of a document, which are there by now, inside the caller's transaction.

    `terms` is of all its chunks in order, read beforehand; None for a document with too many.
    """
    if terms is None or terms.language != _language(connection, index_id):  # changed a moment ago
        # Not listed: it may have millions, and whoever indexes them asks which stand for a text.
        span = "SELECT min(id), max(id) FROM chunks WHERE document_id = ?"
        first_id, last_id = connection.execute(span, (document_id,)).fetchone()
        if first_id is not None:
            add_pending(connection, index_id, first_id, last_id)
        return
    ids = np.array(_column(connection, FIRST_OF_DOCUMENT, (document_id,)), np.int64)
    if not len(ids):
        return
    every = "SELECT id FROM chunks WHERE document_id = ? ORDER BY id"
    if len(ids) < len(terms.lengths):
        all_ids = np.array(_column(connection, every, (document_id,)), np.int64)
        terms = _only(terms, np.isin(all_ids, ids))
    add_chunks(connection, index_id, ids, terms)


def remove_document(connection: sqlite3.Connection, index_id: int, document_id: int) -> None:
    """Take a document's chunks out, before they are deleted, inside the caller's transaction.

    Where another document has the same text, its chunk stands for it from now on.
    """
    ids = _column(connection, FIRST_OF_DOCUMENT, (document_id,))
    next_ids = _column(connection, HEIRS_OF_DOCUMENT, (document_id,))
    remove_chunks(connection, index_id, ids)
    add_by_id(connection, index_id, next_ids)


def add_by_id(connection: sqlite3.Connection, index_id: int, ids: Iterable[int]) -> None:
    """Index live chunks that stand for their text, unless they wait for it in any case."""
    wanted = [id_ for id_ in ids if not connection.execute(IS_PENDING, (index_id, id_)).fetchone()]
    for start in range(0, len(wanted), MOST_AT_ONCE):
        rows = connection.execute(
            f"{TEXTS} WHERE c.id IN (SELECT value FROM json_each(?)) ORDER BY c.id",
            (id_list(wanted[start : start + MOST_AT_ONCE]),),
        ).fetchall()
        add_rows(connection, index_id, rows)


def add_rows(connection: sqlite3.Connection, index_id: int, rows: Sequence[Any]) -> None:
    """Index rows of TEXTS, in order of their ids."""
    if not rows:
        return
    texts = ((title, json.loads(heading), text) for _, title, heading, text in rows)
    terms = read_texts(_language(connection, index_id), texts)
    add_chunks(connection, index_id, np.array([row[0] for row in rows], np.int64), terms)


def add_chunks(
    connection: sqlite3.Connection, index_id: int, ids: NDArray[np.int64], terms: TextTerms
) -> None:
    """Add a segment of these chunks, ids ascending, at most MOST_CHUNKS of them."""
    places = np.repeat(np.arange(len(ids)), terms.lengths)
    segment_id = add_segment(connection, index_id, ids, terms.lengths, terms.words)
    add_blocks(connection, segment_id, invert(terms.keys, places))


def add_segment(
    connection: sqlite3.Connection,
    index_id: int,
    ids: NDArray[np.int64],
    lengths: NDArray[Any],
    words: Iterable[str],
) -> int:
    """Add a segment without its terms; return its number."""
    if len(ids) > MOST_CHUNKS:
        raise ValueError(f"This is a bug: a segment of {len(ids)} chunks")
    values = (index_id, len(ids), int(ids[0]), int(ids[-1]))
    arrays = (ids.astype("<i8").tobytes(), lengths.astype("<u4").tobytes())
    row = connection.execute(
        "INSERT INTO lexical_segments (index_id, chunks, first_id, last_id, ids, lengths, words)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (*values, *arrays, "\n".join(words)),
    ).fetchone()
    return int(row[0])


def add_blocks(connection: sqlite3.Connection, segment_id: int, postings: Postings) -> None:
    """Add terms to a segment, keys after those that it has."""
    connection.executemany(
        "INSERT INTO lexical_blocks (segment_id, first_key, postings) VALUES (?, ?, ?)",
        ((segment_id, *block) for block in to_blocks(postings)),
    )


def add_pending(connection: sqlite3.Connection, index_id: int, first_id: int, last_id: int) -> None:
    """Have chunks indexed later, in steps."""
    connection.execute(
        "INSERT INTO lexical_pending (index_id, first_id, last_id) VALUES (?, ?, ?)"
        " ON CONFLICT DO UPDATE SET last_id = max(last_id, excluded.last_id)",
        (index_id, first_id, last_id),
    )


def begin_anew(connection: sqlite3.Connection, index_id: int) -> None:
    """Forget all segments of an index and have its chunks indexed later, in steps."""
    connection.execute("DELETE FROM lexical_segments WHERE index_id = ?", (index_id,))
    connection.execute("DELETE FROM lexical_pending WHERE index_id = ?", (index_id,))
    connection.execute(
        "INSERT INTO lexical_pending SELECT index_id, min(id), max(id) FROM chunks"
        " WHERE index_id = ? GROUP BY index_id",
        (index_id,),
    )


def set_language(connection: sqlite3.Connection, index_id: int, definition: str) -> None:
    """Read an index in the language of its definition, anew where that is another one."""
    language = language_of(definition)
    changed = connection.execute(
        "UPDATE indexes SET language = ? WHERE id = ? AND language != ?",
        (language, index_id, language),
    ).rowcount
    if changed:
        begin_anew(connection, index_id)


def remove_chunks(connection: sqlite3.Connection, index_id: int, ids: Sequence[int]) -> None:
    """Mark chunks as gone, those that a segment has; ids ascending."""
    if not ids:
        return
    wanted = np.array(ids, np.int64)
    for segment in segments_of(connection, index_id):
        inside = wanted[(wanted >= segment.first_id) & (wanted <= segment.last_id)]
        if len(inside):
            _remove_from(connection, segment, inside)


def _remove_from(
    connection: sqlite3.Connection, segment: Segment, wanted: NDArray[np.int64]
) -> None:
    [blob] = connection.execute(
        "SELECT ids FROM lexical_segments WHERE id = ?", (segment.id,)
    ).fetchone()
    gone = segment.gone()
    if gone is None:
        gone = np.zeros(segment.chunks, np.bool_)
    gone |= np.isin(np.frombuffer(blob, "<i8"), wanted, assume_unique=True)
    count = int(np.count_nonzero(gone))
    if count == segment.chunks:
        connection.execute("DELETE FROM lexical_segments WHERE id = ?", (segment.id,))
    elif count > segment.removed:
        set_removed(connection, segment.id, gone)


def set_removed(connection: sqlite3.Connection, segment_id: int, gone: NDArray[np.bool_]) -> None:
    """Store which chunks of a segment are gone."""
    connection.execute(
        "INSERT INTO lexical_removed (segment_id, chunks, bits) VALUES (?, ?, ?)"
        " ON CONFLICT (segment_id) DO UPDATE SET chunks = excluded.chunks, bits = excluded.bits",
        (segment_id, int(np.count_nonzero(gone)), np.packbits(gone).tobytes()),
    )


def to_mask(bits: bytes, count: int) -> NDArray[np.bool_]:
    """Unpack a bit for each of `count` chunks."""
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=count).astype(np.bool_)


def _language(connection: sqlite3.Connection, index_id: int) -> str:
    row = connection.execute("SELECT language FROM indexes WHERE id = ?", (index_id,)).fetchone()
    return str(row[0])


def _whole(title: str, heading: Sequence[str], text: str) -> str:
    above = {name.casefold(): name for name in (title, *heading)}
    return "\n".join((*above.values(), text))


def _only(terms: TextTerms, wanted: NDArray[np.bool_]) -> TextTerms:
    """Leave out the texts that are not wanted."""
    keys = terms.keys[np.repeat(wanted, terms.lengths)]
    return TextTerms(terms.language, keys, terms.lengths[wanted], terms.words)


def _column(connection: sqlite3.Connection, query: str, values: Row) -> list[int]:
    return [row[0] for row in connection.execute(query, values)]
