"""The `model_changes` and `new_hashes` tables: an index on its way to another model's vectors.

The vectors that it has serve until every chunk has one of the new artefact.
"""

import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from embedserve.store.database import Database
from embedserve.store.integrity import EmbeddedChunk, embedded_chunk
from embedserve.store.jobs import insert_job
from embedserve.store.rows import to_blob
from embedserve.types import Index, Vectors

SAVE = """
INSERT INTO model_changes (index_id, definition, model, artefact, dimensions)
VALUES (?, ?, ?, ?, ?) ON CONFLICT (index_id) DO UPDATE SET definition = excluded.definition,
  model = excluded.model, artefact = excluded.artefact, dimensions = excluded.dimensions
"""
FORGET = "DELETE FROM new_hashes WHERE chunk_id IN (SELECT id FROM chunks WHERE index_id = ?)"

WAITING = """
SELECT c.id, c.text_hash, c.text, c.heading, d.title FROM chunks c
JOIN documents d ON d.id = c.document_id
WHERE c.index_id = ? AND NOT EXISTS (SELECT 1 FROM new_hashes n WHERE n.chunk_id = c.id)
ORDER BY c.id LIMIT ?
"""

# A chunk that lacks its new vector: it came meanwhile, or the vectors were given up.
UNREADY = """
SELECT c.id FROM chunks c LEFT JOIN new_hashes n ON n.chunk_id = c.id
LEFT JOIN vectors v ON v.artefact = ? AND v.text_hash = n.text_hash
WHERE c.index_id = ? AND length(v.vector) IS NOT ?
"""


@dataclass(frozen=True)
class ModelChange:
    """One row of `model_changes`: what the index is to become."""

    index_id: int
    definition: str
    model: str
    artefact: str
    dimensions: int


class ModelChanges:
    """Ask for changes, advance and carry them out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ask(self, index: Index, change: ModelChange) -> None:
        """Note what the index is to become, and queue the job that does it if none waits.

        One that runs may be past its last look at what is asked for. If it is not, the next finds
        nothing left to do.
        """
        with self._database.write() as connection:
            former = _get(connection, index.id)
            if former is None or former.artefact != change.artefact:
                connection.execute(FORGET, (index.id,))
            connection.execute(SAVE, tuple(vars(change).values()))
            is_queued = connection.execute(
                "SELECT 1 FROM jobs WHERE index_name = ? AND kind = 'reembed' AND status = 'queued'",
                (index.name,),
            ).fetchone()
            if not is_queued:
                insert_job(connection, index.name, "", kind="reembed")

    def get(self, index_id: int) -> ModelChange | None:
        """Return what the index is to become, if anything."""
        with self._database.read() as connection:
            return _get(connection, index_id)

    def withdraw(self, index_id: int) -> None:
        """Let the index stay what it is; vectors that were computed stay for another time."""
        with self._database.write() as connection:
            connection.execute(FORGET, (index_id,))
            connection.execute("DELETE FROM model_changes WHERE index_id = ?", (index_id,))

    def count_ready(self, index_id: int) -> int:
        """Count the chunks that have their new vector."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT count(*) FROM new_hashes n JOIN chunks c ON c.id = n.chunk_id"
                " WHERE c.index_id = ?",
                (index_id,),
            ).fetchone()
            return int(row[0])

    def waiting(self, index_id: int, *, limit: int) -> list[EmbeddedChunk]:
        """Return the next chunks that have no new vector."""
        with self._database.read() as connection:
            rows = connection.execute(WAITING, (index_id, limit))
            return [embedded_chunk(row) for row in rows]

    def known(self, change: ModelChange, hashes: Collection[str]) -> dict[str, Vectors]:
        """Map text hash to its (dimensions,) vector, for texts that the model embedded before."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT text_hash, vector FROM vectors WHERE artefact = ? AND length(vector) = ?"
                " AND text_hash IN (SELECT value FROM json_each(?))",
                (change.artefact, 4 * change.dimensions, json.dumps(list(hashes))),
            )
            return {row[0]: np.frombuffer(row[1], "<f4").astype(np.float32) for row in rows}

    def keep(
        self,
        change: ModelChange,
        chunks: Sequence[EmbeddedChunk],
        hashes: Sequence[str],
        vectors: Vectors,
    ) -> bool:
        """Store new vectors of chunks; a chunk that is gone meanwhile is left out.

        False, and nothing done, when the change is not asked for any more.
        """
        with self._database.write() as connection:
            if _get(connection, change.index_id) != change:
                return False
            connection.executemany(
                "INSERT INTO vectors (artefact, text_hash, vector) VALUES (?, ?, ?)"
                " ON CONFLICT (artefact, text_hash) DO UPDATE SET vector = excluded.vector"
                " WHERE length(vector) != length(excluded.vector)",
                (
                    (change.artefact, text_hash, to_blob(vector))
                    for text_hash, vector in zip(hashes, vectors, strict=True)
                ),
            )
            connection.executemany(
                "INSERT INTO new_hashes (chunk_id, text_hash) SELECT id, ? FROM chunks"
                " WHERE id = ? ON CONFLICT DO NOTHING",
                ((text_hash, chunk.id) for text_hash, chunk in zip(hashes, chunks, strict=True)),
            )
        return True

    def carry_out(self, index: Index, change: ModelChange) -> bool:
        """Let the index be what it was to become, with an empty generation that is to be filled.

        False when a chunk lacks its new vector, or something else is asked for by now. For the
        thread that writes the vector index, which must hold nothing of the former model.
        """
        with self._database.write() as connection:
            if _get(connection, index.id) != change:
                return False
            bad = (change.artefact, index.id, 4 * change.dimensions)
            if connection.execute(UNREADY + " LIMIT 1", bad).fetchone():
                connection.execute(f"DELETE FROM new_hashes WHERE chunk_id IN ({UNREADY})", bad)
                return False
            _become(connection, index, change)
            return True


def _become(connection: sqlite3.Connection, index: Index, change: ModelChange) -> None:
    connection.execute(
        "UPDATE chunks SET text_hash ="
        " (SELECT n.text_hash FROM new_hashes n WHERE n.chunk_id = chunks.id) WHERE index_id = ?",
        (index.id,),
    )
    connection.execute(
        "UPDATE indexes SET definition = ?, model = ?, artefact = ?, dimensions = ? WHERE id = ?",
        (change.definition, change.model, change.artefact, change.dimensions, index.id),
    )
    connection.execute(
        "INSERT INTO dropped_generations (key) SELECT key FROM generations WHERE index_id = ?",
        (index.id,),
    )
    connection.execute("DELETE FROM generations WHERE index_id = ?", (index.id,))
    connection.execute(
        "INSERT INTO generations (index_id, status) VALUES (?, 'serving')", (index.id,)
    )
    connection.execute("DELETE FROM changes WHERE index_id = ?", (index.id,))
    connection.execute(
        "INSERT INTO changes (index_id, chunk_id, op)"
        " SELECT index_id, id, 'upsert' FROM chunks WHERE index_id = ? ORDER BY id",
        (index.id,),
    )
    connection.execute(FORGET, (index.id,))
    connection.execute("DELETE FROM model_changes WHERE index_id = ?", (index.id,))


def _get(connection: sqlite3.Connection, index_id: int) -> ModelChange | None:
    row = connection.execute(
        "SELECT index_id, definition, model, artefact, dimensions FROM model_changes"
        " WHERE index_id = ?",
        (index_id,),
    ).fetchone()
    return ModelChange(*row) if row else None
