"""Reading live chunks and their vectors. Nothing here changes anything."""

import json
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedserve.store.database import Database
from embedserve.store.rows import chunk_vectors, id_list, read_lines
from embedserve.store.vector_rows import known_hashes
from embedserve.types import ChunkVectors, Index, StoredChunk

MAX_ID = 2**63 - 1

LIVE_VECTORS = """
SELECT c.id, v.vector FROM chunks c
JOIN vectors v ON v.artefact = ? AND v.text_hash = c.text_hash
WHERE c.index_id = ?
"""


class Chunks:
    """Read chunks of one index; a chunk that was removed cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def by_id(self, index_id: int, ids: Iterable[int]) -> dict[int, StoredChunk]:
        """Map id to chunk for those ids that are live in this index; the others are left out."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT c.id, c.text, c.span_start, c.span_end, c.page, c.heading,"
                " c.line_start, c.line_end, d.id, d.path, d.title, d.metadata, d.sha256 FROM"
                " chunks c"
                " JOIN documents d ON d.id = c.document_id"
                " WHERE c.index_id = ? AND c.id IN (SELECT value FROM json_each(?))",
                (index_id, id_list(ids)),
            )
            return {row[0]: _stored_chunk(row) for row in rows}

    def count(self, index_id: int, *, up_to: int | None = None) -> int:
        """Count the live chunks of an index, up to an id when one is given."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT count(*) FROM chunks WHERE index_id = ? AND id <= ?",
                (index_id, MAX_ID if up_to is None else up_to),
            ).fetchone()
            return int(row[0])

    def ids(self, index_id: int) -> NDArray[np.int64]:
        """Return the ids of every live chunk, ascending: (count,) int64."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT id FROM chunks WHERE index_id = ? ORDER BY id", (index_id,)
            )
            return np.fromiter((row[0] for row in rows), dtype=np.int64)

    def vectors_after(self, index: Index, after_id: int, *, limit: int) -> ChunkVectors:
        """Return the next `limit` vectors with ids above `after_id`; none at the end."""
        with self._database.read() as connection:
            rows = connection.execute(
                LIVE_VECTORS + " AND c.id > ? ORDER BY c.id LIMIT ?",
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


def _stored_chunk(row: tuple[Any, ...]) -> StoredChunk:
    id_, text, start, end, page, heading, line_start, line_end, *document = row
    place = (start, end, page, tuple(json.loads(heading)), read_lines(line_start, line_end))
    return StoredChunk(id_, text, *place, *document)
