"""Reading live chunks and their vectors. Nothing here changes anything."""

import json
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedserve.store.database import Database
from embedserve.store.meeting import live
from embedserve.store.representatives import COUNT_TEXTS, FIRST_IDS, IS_FIRST
from embedserve.store.rows import chunk_vectors, id_list, read_lines
from embedserve.store.vector_rows import known_hashes
from embedserve.types import ChunkVectors, Index, SqlCondition, StoredChunk, StoredText

MAX_ID = 2**63 - 1

LIVE_VECTORS = """
SELECT c.id, v.vector FROM chunks c
JOIN vectors v ON v.artefact = ? AND v.text_hash = c.text_hash
WHERE c.index_id = ?
"""

STORED_COLUMNS = (
    "c.id, c.text, c.span_start, c.span_end, c.page, c.heading, c.line_start, c.line_end,"
    " c.ordinal, d.id, d.path, d.title, d.metadata, d.sha256"
)

# The first `most` chunks of each text that one of some ids has, and how many there are. CROSS JOIN
# says in which order: left to itself, the planner reads all chunks of the index for it.
TEXTS = f"""
WITH wanted AS (
  SELECT DISTINCT o.text_hash FROM json_each(?) one CROSS JOIN chunks o ON o.id = one.value
  WHERE o.index_id = ?),
placed AS (
  SELECT c.id, count(*) OVER (PARTITION BY c.text_hash) AS places,
    row_number() OVER (PARTITION BY c.text_hash ORDER BY c.id) AS place
  FROM wanted w CROSS JOIN chunks c INDEXED BY chunks_by_text
    ON c.index_id = ? AND c.text_hash = w.text_hash
  CROSS JOIN documents d ON d.id = c.document_id WHERE {{condition}})
SELECT p.places, c.text_hash, {STORED_COLUMNS} FROM placed p
CROSS JOIN chunks c ON c.id = p.id CROSS JOIN documents d ON d.id = c.document_id
WHERE p.place <= ? ORDER BY c.id
"""

BETWEEN = f"""
SELECT {STORED_COLUMNS} FROM json_each(?) place
CROSS JOIN chunks c ON c.document_id = json_extract(place.value, '$[0]')
  AND c.ordinal BETWEEN json_extract(place.value, '$[1]') AND json_extract(place.value, '$[2]')
CROSS JOIN documents d ON d.id = c.document_id
"""


class Chunks:
    """Read chunks of one index; a chunk that was removed cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def by_id(self, index_id: int, ids: Iterable[int]) -> dict[int, StoredChunk]:
        """Map id to chunk for those ids that are live in this index; the others are left out."""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT {STORED_COLUMNS} FROM chunks c JOIN documents d ON d.id = c.document_id"
                " WHERE c.index_id = ? AND c.id IN (SELECT value FROM json_each(?))",
                (index_id, id_list(ids)),
            )
            return {row[0]: _stored_chunk(row) for row in rows}

    def texts(
        self,
        index_id: int,
        ids: Iterable[int],
        *,
        most: int,
        among: SqlCondition | None = None,
    ) -> dict[int, StoredText]:
        """Map id to its text with the first `most` chunks that have it, for ids that are live.

        Chunks that do not meet `among` are left out, and a text without any other. Ids of one text
        have one object.
        """
        listed = id_list(ids)
        condition = among or SqlCondition("1")
        values = (listed, index_id, index_id, *condition.values, most)
        with self._database.read() as connection:
            rows = connection.execute(TEXTS.format(condition=condition.sql), values).fetchall()
            hashes = connection.execute(
                "SELECT id, text_hash FROM chunks"
                " WHERE index_id = ? AND id IN (SELECT value FROM json_each(?))",
                (index_id, listed),
            ).fetchall()
        chunks: dict[str, list[StoredChunk]] = {}
        places: dict[str, int] = {}
        for count, text_hash, *columns in rows:
            chunks.setdefault(text_hash, []).append(_stored_chunk(columns))
            places[text_hash] = count
        texts = {key: StoredText(tuple(found), places[key]) for key, found in chunks.items()}
        return {id_: texts[text_hash] for id_, text_hash in hashes if text_hash in texts}

    def live(
        self, index_id: int, ids: Iterable[int], *, among: SqlCondition | None = None
    ) -> list[int]:
        """Return those of some ids that are live, and whose text meets `among` (meeting.py)."""
        with self._database.read() as connection:
            return live(connection, index_id, ids, among)

    def between(self, places: Iterable[tuple[int, int, int]]) -> dict[int, StoredChunk]:
        """Map id to chunk for what lies in (document, first ordinal, last), both included."""
        with self._database.read() as connection:
            rows = connection.execute(BETWEEN, (json.dumps([*places]),))
            return {row[0]: _stored_chunk(row) for row in rows}

    def count(self, index_id: int, *, up_to: int | None = None) -> int:
        """Count the live chunks of an index, up to an id when one is given."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT count(*) FROM chunks WHERE index_id = ? AND id <= ?",
                (index_id, MAX_ID if up_to is None else up_to),
            ).fetchone()
            return int(row[0])

    def count_texts(self, index_id: int) -> int:
        """Count the distinct texts of an index: what the vector index is to hold of it."""
        with self._database.read() as connection:
            row = connection.execute(COUNT_TEXTS, {"id": index_id}).fetchone()
            return int(row[0])

    def representatives(self, index_id: int) -> NDArray[np.int64]:
        """Return the ids of the chunks that stand for their text, ascending: (texts,) int64."""
        with self._database.read() as connection:
            rows = connection.execute(FIRST_IDS, (index_id,))
            return np.sort(np.fromiter((row[0] for row in rows), dtype=np.int64))

    def ids(self, index_id: int) -> NDArray[np.int64]:
        """Return the ids of every live chunk, ascending: (count,) int64."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT id FROM chunks WHERE index_id = ? ORDER BY id", (index_id,)
            )
            return np.fromiter((row[0] for row in rows), dtype=np.int64)

    def vectors_after(self, index: Index, after_id: int, *, limit: int) -> ChunkVectors:
        """Return the next `limit` vectors, one for each text, with ids above `after_id`.

        The ids are those of representatives; none at the end.
        """
        with self._database.read() as connection:
            rows = connection.execute(
                f"{LIVE_VECTORS} AND c.id > ? AND {IS_FIRST} ORDER BY c.id LIMIT ?",
                (index.artefact, index.id, after_id, limit),
            ).fetchall()
        return chunk_vectors(rows, index)

    def vectors_of(self, index: Index, ids: Iterable[int]) -> ChunkVectors:
        """Return the vectors of those ids that are live, in order of id."""
        with self._database.read() as connection:
            rows = connection.execute(
                LIVE_VECTORS + " AND c.id IN (SELECT value FROM json_each(?)) ORDER BY c.id",
                (index.artefact, index.id, id_list(ids)),
            ).fetchall()
        return chunk_vectors(rows, index)

    def known_hashes(self, index: Index, text_hashes: Collection[str]) -> set[str]:
        """Return which of these texts have their vector, for they were embedded before.

        A damaged vector counts as unknown, so that its text is embedded again.
        """
        with self._database.read() as connection:
            return known_hashes(connection, index.artefact, index.dimensions, text_hashes)


def _stored_chunk(row: Sequence[Any]) -> StoredChunk:
    id_, text, start, end, page, heading, line_start, line_end, ordinal, *document = row
    place = (start, end, page, _heading(heading), read_lines(line_start, line_end))
    return StoredChunk(id_, text, *place, ordinal, *document)


@lru_cache(maxsize=1024)
def _heading(text: str) -> tuple[str, ...]:
    """Read a path of headings, which chunks that stand together share."""
    return tuple(json.loads(text))
