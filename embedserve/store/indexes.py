"""The `indexes` table: names, definitions, counts."""

import sqlite3

from embedserve.errors import ConflictError, IndexNotFoundError
from embedserve.store.database import Database, now
from embedserve.store.job_rows import cancel_jobs, forget_names
from embedserve.store.lexical_rows import language_of
from embedserve.store.representatives import COUNT_TEXTS
from embedserve.store.rows import Row
from embedserve.types import Index, IndexCounts

INDEX = """
SELECT i.id, i.name, i.definition, i.model, i.artefact, i.dimensions, i.created_at, g.key
FROM indexes i JOIN generations g ON g.index_id = i.id AND g.status = 'serving'
"""


class Indexes:
    """Create, read and delete indexes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, name: str, definition: str, *, model: str, artefact: str, dimensions: int
    ) -> Index:
        """Add an index; raise ConflictError when the name is taken.

        `definition` is JSON and is kept as it comes.
        """
        values = (name, definition, model, artefact, dimensions, now())
        with self._database.write() as connection:
            if connection.execute("SELECT 1 FROM indexes WHERE name = ?", (name,)).fetchone():
                raise ConflictError(
                    f"Index `{name}` exists already. Choose another name, or delete it first."
                )
            return insert_index(connection, values)

    def get(self, name: str) -> Index:
        """Read one index; raise IndexNotFoundError when there is none of that name."""
        with self._database.read() as connection:
            return _by_name(connection, name)

    def all(self) -> list[Index]:
        """List every index by name."""
        with self._database.read() as connection:
            rows = connection.execute(INDEX + "ORDER BY i.name")
            return [Index(*row) for row in rows]

    def delete(self, name: str, *, forgets_names: bool = False) -> Index:
        """Delete an index with all that it holds, except vectors and the history of its jobs.

        Of that too the names of documents, if it `forgets_names`.

        The vector index drops it later, and no job of it ever runs on a new index of that name.
        """
        with self._database.write() as connection:
            index = _by_name(connection, name)
            connection.execute(
                "INSERT INTO dropped_generations (key)"
                " SELECT key FROM generations WHERE index_id = ?",
                (index.id,),
            )
            connection.execute("DELETE FROM indexes WHERE id = ?", (index.id,))
            cancel_jobs(connection, name, f"Index `{name}` was deleted before the job had ended.")
            if forgets_names:
                forget_names(connection, name)
        return index

    def counts(self, index_id: int) -> IndexCounts:
        """Count what one index holds.

        A file that could not be read anew while its old chunks stay counts as a document and as
        unreadable.
        """
        with self._database.read() as connection:
            row = connection.execute(
                f"""
                SELECT
                  (SELECT count(*) FROM documents d WHERE d.index_id = :id
                     AND EXISTS (SELECT 1 FROM chunks c WHERE c.document_id = d.id)),
                  (SELECT count(*) FROM documents
                     WHERE index_id = :id AND problem_code IS NOT NULL),
                  (SELECT count(*) FROM chunks WHERE index_id = :id),
                  (SELECT count(*) FROM indexes i
                     JOIN chunks c ON c.index_id = i.id
                     JOIN vectors v ON v.artefact = i.artefact AND v.text_hash = c.text_hash
                     WHERE i.id = :id),
                  ({COUNT_TEXTS}),
                  (SELECT count(*) FROM changes WHERE index_id = :id)
                """,
                {"id": index_id},
            ).fetchone()
        return IndexCounts(*row)


def insert_index(connection: sqlite3.Connection, values: Row) -> Index:
    """Add an index with its first generation, inside the caller's transaction.

    `values`: name, definition, model, artefact, dimensions, created_at.
    """
    [index_id] = connection.execute(
        "INSERT INTO indexes (name, definition, model, artefact, dimensions, created_at, language)"
        " VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (*values, language_of(str(values[1]))),
    ).fetchone()
    connection.execute(
        "INSERT INTO generations (index_id, status) VALUES (?, 'serving')", (index_id,)
    )
    return Index(*connection.execute(INDEX + "WHERE i.id = ?", (index_id,)).fetchone())


def _by_name(connection: sqlite3.Connection, name: str) -> Index:
    row = connection.execute(INDEX + "WHERE i.name = ?", (name,)).fetchone()
    if row is None:
        raise IndexNotFoundError(
            f"Index `{name}` does not exist. List the indexes, or create it first."
        )
    return Index(*row)
