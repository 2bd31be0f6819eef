"""The `model_changes` and `new_hashes` tables: an index on its way to another model's vectors.

The vectors that it has serve until every chunk has one of the new artefact.
"""

import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from embedserve.store.database import Database
from embedserve.store.integrity import EMBEDDED_COLUMNS, EmbeddedChunk, embedded_chunk
from embedserve.store.job_rows import write_file_result
from embedserve.store.jobs import insert_job
from embedserve.store.lexical import Lexical
from embedserve.store.lexical_care import reconcile
from embedserve.store.lexical_rows import set_language
from embedserve.store.representatives import log_all
from embedserve.store.rows import BYTES_PER_FLOAT, id_list, to_blob
from embedserve.store.vector_rows import known_vectors, save_vectors
from embedserve.types import FileResult, Index, Vectors

SAVE = """
INSERT INTO model_changes (index_id, definition, model, artefact, dimensions)
VALUES (?, ?, ?, ?, ?) ON CONFLICT (index_id) DO UPDATE SET definition = excluded.definition,
  model = excluded.model, artefact = excluded.artefact, dimensions = excluded.dimensions
"""
FORGET = "DELETE FROM new_hashes WHERE chunk_id IN (SELECT id FROM chunks WHERE index_id = ?)"

WAITING = f"""
SELECT {EMBEDDED_COLUMNS} FROM chunks c
JOIN documents d ON d.id = c.document_id
WHERE c.index_id = ? AND c.id > ?
  AND NOT EXISTS (SELECT 1 FROM new_hashes n WHERE n.chunk_id = c.id)
ORDER BY c.id LIMIT ?
"""

# A chunk that lacks its new vector: it came meanwhile, or the vectors were given up.
UNREADY = """
SELECT c.id FROM chunks c LEFT JOIN new_hashes n ON n.chunk_id = c.id
LEFT JOIN vectors v ON v.artefact = ? AND v.text_hash = n.text_hash
WHERE c.index_id = ? AND length(v.vector) IS NOT ?
"""
WITHOUT_HASH = """
SELECT 1 FROM chunks c LEFT JOIN new_hashes n ON n.chunk_id = c.id
WHERE c.index_id = ? AND n.chunk_id IS NULL LIMIT 1
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

    def __init__(self, database: Database, lexical: Lexical) -> None:
        self._database = database
        self._lexical = lexical

    def ask(self, index: Index, change: ModelChange) -> bool:
        """Note what the index is to become, and queue the job that does it if none waits.

        One that runs may be past its last look at what is asked for. If it is not, the next finds
        nothing left to do. False, and nothing done, when the index is gone.
        """
        with self._database.write() as connection:
            if not connection.execute("SELECT 1 FROM indexes WHERE id = ?", (index.id,)).fetchone():
                return False
            former = _get(connection, index.id)
            if former is None or former.artefact != change.artefact:
                connection.execute(FORGET, (index.id,))
            connection.execute(SAVE, tuple(vars(change).values()))
            is_queued = connection.execute(
                "SELECT 1 FROM jobs"
                " WHERE index_name = ? AND kind = 'reembed' AND status = 'queued'",
                (index.name,),
            ).fetchone()
            if not is_queued:
                insert_job(connection, index.name, "", kind="reembed")
        return True

    def get(self, index_id: int) -> ModelChange | None:
        """Return what the index is to become, if anything."""
        with self._database.read() as connection:
            return _get(connection, index_id)

    def count_ready(self, index_id: int) -> int:
        """Count the chunks that have their new vector."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT count(*) FROM new_hashes n JOIN chunks c ON c.id = n.chunk_id"
                " WHERE c.index_id = ?",
                (index_id,),
            ).fetchone()
            return int(row[0])

    def waiting(self, index_id: int, after_id: int = 0, *, limit: int) -> list[EmbeddedChunk]:
        """Return the next chunks with ids above `after_id` that have no new vector."""
        with self._database.read() as connection:
            rows = connection.execute(WAITING, (index_id, after_id, limit))
            return [embedded_chunk(row) for row in rows]

    def known(self, change: ModelChange, hashes: Collection[str]) -> dict[str, Vectors]:
        """Map text hash to its (dimensions,) vector, for texts that the model embedded before."""
        with self._database.read() as connection:
            return known_vectors(connection, change.artefact, change.dimensions, hashes)

    def keep(
        self,
        change: ModelChange,
        chunks: Sequence[EmbeddedChunk],
        hashes: Sequence[str],
        vectors: Vectors,
        *,
        noted: Sequence[FileResult] = (),
        job_id: str = "",
    ) -> bool:
        """Store new vectors of chunks; a chunk that is gone meanwhile is left out.

        `noted` is what the job has to say of their documents. False, and nothing done, when the
        change is not asked for any more.
        """
        with self._database.write() as connection:
            if _get(connection, change.index_id) != change:
                return False
            pairs = zip(hashes, vectors, strict=True)
            save_vectors(connection, change.artefact, ((key, to_blob(row)) for key, row in pairs))
            connection.executemany(
                "INSERT INTO new_hashes (chunk_id, text_hash) SELECT id, ? FROM chunks"
                " WHERE id = ? ON CONFLICT DO NOTHING",
                ((text_hash, chunk.id) for text_hash, chunk in zip(hashes, chunks, strict=True)),
            )
            for result in noted:
                write_file_result(connection, job_id, result)
        return True

    def carry_out(self, index: Index, change: ModelChange) -> bool:
        """Let the index be what it was to become, with an empty generation that is to be filled.

        False when a chunk lacks its new vector, or something else is asked for by now. For the
        thread that writes the vector index, which must hold nothing of the former model.
        """
        bad = (change.artefact, index.id, BYTES_PER_FLOAT * change.dimensions)
        with self._database.read() as connection:
            unready = [row[0] for row in connection.execute(UNREADY, bad)]
        with self._database.write() as connection:
            if _get(connection, index.id) != change:
                return False
            if unready:
                connection.execute(
                    f"DELETE FROM new_hashes WHERE chunk_id IN ({UNREADY}"
                    " AND c.id IN (SELECT value FROM json_each(?)))",
                    (*bad, id_list(unready)),
                )
                return False
            # Vectors in use are not deleted, so only what has no new hash can have come since.
            if connection.execute(WITHOUT_HASH, (index.id,)).fetchone():
                return False
            _become(connection, index, change)
        self._lexical.came(index.id, are_waiting=True)
        return True

    def become_at_once(self, index: Index, change: ModelChange) -> bool:
        """Let an index without chunks be what it is to become.

        False, and nothing done, for one that has chunks, or a job at work that may bring some.
        """
        with self._database.write() as connection:
            is_free = connection.execute(
                "SELECT 1 FROM indexes i WHERE i.id = ?"
                " AND NOT EXISTS (SELECT 1 FROM chunks WHERE index_id = i.id) AND NOT EXISTS"
                " (SELECT 1 FROM jobs WHERE index_name = i.name AND status = 'running')",
                (index.id,),
            ).fetchone()
            if not is_free:
                return False
            _become(connection, index, change)
            return True

    def stay(self, index: Index, definition: str) -> bool:
        """Give an index another definition with the artefact that it has, and withdraw a change.

        Vectors that were computed stay for another time. False, and nothing done, when the index
        is gone or took another model meanwhile.
        """
        with self._database.write() as connection:
            is_done = connection.execute(
                "UPDATE indexes SET definition = ? WHERE id = ? AND artefact = ?",
                (definition, index.id, index.artefact),
            ).rowcount
            if is_done:
                connection.execute(FORGET, (index.id,))
                connection.execute("DELETE FROM model_changes WHERE index_id = ?", (index.id,))
                set_language(connection, index.id, definition)
        self._lexical.came(index.id, are_waiting=True)
        return bool(is_done)


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
    log_all(connection, index.id)
    # Chunks of one text may be of two by now, or the other way round: prefixes are cut elsewhere.
    reconcile(connection, index.id)
    set_language(connection, index.id, change.definition)
    connection.execute(FORGET, (index.id,))
    connection.execute("DELETE FROM model_changes WHERE index_id = ?", (index.id,))


def _get(connection: sqlite3.Connection, index_id: int) -> ModelChange | None:
    row = connection.execute(
        "SELECT index_id, definition, model, artefact, dimensions FROM model_changes"
        " WHERE index_id = ?",
        (index_id,),
    ).fetchone()
    return ModelChange(*row) if row else None
