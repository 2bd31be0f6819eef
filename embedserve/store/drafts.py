"""Documents that are too long for one transaction: their chunks are staged as they are embedded.

A draft belongs to a job and a path. No query looks at it; the transaction that commits the document
copies its chunks, and what is left of it is deleted in small steps.
"""

import sqlite3

from embedserve.store.database import Database
from embedserve.store.document_rows import CHUNK_COLUMNS, check_vectors, chunk_rows, insert_vectors
from embedserve.store.job_rows import add_work
from embedserve.types import Draft, EmbeddedChunks, Index, Work

DELETE_BATCH = 5000
"""Chunks deleted in one transaction: others may write after some tens of milliseconds."""

DELETE = """
DELETE FROM draft_chunks WHERE rowid IN (
  SELECT rowid FROM draft_chunks WHERE draft_id = ? ORDER BY ordinal LIMIT ?)
"""
ENDED = """
SELECT d.id FROM drafts d JOIN jobs j ON j.id = d.job_id
WHERE j.status NOT IN ('queued', 'running')
"""


class Drafts:
    """Stage chunks, take up what was staged, and forget it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def open(self, job_id: str, path: str, origin: str) -> Draft:
        """Return what the job staged of a document before a stop, or an empty draft.

        What was staged from another `origin` is forgotten.
        """
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT id, chunks, chars, origin FROM drafts WHERE job_id = ? AND path = ?",
                (job_id, path),
            ).fetchone()
        if row and row[3] == origin:
            return Draft(*row[:3])
        if row:
            self._delete(row[0])
        with self._database.write() as connection:
            made = connection.execute(
                "INSERT INTO drafts (job_id, path, origin, chunks, chars) VALUES (?, ?, ?, 0, 0)"
                " RETURNING id",
                (job_id, path, origin),
            ).fetchone()
        return Draft(made[0], 0, 0)

    def add(
        self, index: Index, draft: Draft, part: EmbeddedChunks, *, job_id: str, work: Work
    ) -> Draft:
        """Stage the chunks that follow, keep their vectors, and return the draft as it is now.

        Until the document is committed no chunk has these vectors; no vacuum deletes them while a
        job is unfinished.
        """
        check_vectors(index, part.new_hashes, part.vectors, "a part of a document")
        now = Draft(draft.id, draft.chunks + len(part.chunks), part.end)
        with self._database.write() as connection:
            insert_vectors(connection, index, part.new_hashes, part.vectors)
            connection.executemany(
                f"INSERT INTO draft_chunks (draft_id, {CHUNK_COLUMNS})"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                ((draft.id, *row) for row in chunk_rows(part)),
            )
            connection.execute(
                "UPDATE drafts SET chunks = ?, chars = ? WHERE id = ?",
                (now.chunks, now.chars, now.id),
            )
            add_work(connection, job_id, work)
        return now

    def forget(self, job_id: str) -> None:
        """Forget all that a job has staged."""
        self._delete_all("SELECT id FROM drafts WHERE job_id = ?", job_id)

    def forget_ended(self) -> None:
        """Forget what jobs have staged that are not to go on."""
        self._delete_all(ENDED)

    def discard(self, draft: Draft) -> None:
        """Forget one draft, such as one that was committed."""
        self._delete(draft.id)

    def _delete_all(self, query: str, *values: str) -> None:
        with self._database.read() as connection:
            ids = [row[0] for row in connection.execute(query, values)]
        for draft_id in ids:
            self._delete(draft_id)

    def _delete(self, draft_id: int) -> None:
        deleted = DELETE_BATCH
        while deleted == DELETE_BATCH:
            with self._database.write() as connection:
                deleted = connection.execute(DELETE, (draft_id, DELETE_BATCH)).rowcount
        with self._database.write() as connection:
            connection.execute("DELETE FROM drafts WHERE id = ?", (draft_id,))


def insert_staged(
    connection: sqlite3.Connection, index_id: int, document_id: int, draft: Draft
) -> None:
    """Write the chunks of a draft as those of a document; `insert_chunks` logs them."""
    copied = connection.execute(
        f"INSERT INTO chunks (index_id, document_id, {CHUNK_COLUMNS})"
        f" SELECT ?, ?, {CHUNK_COLUMNS} FROM draft_chunks WHERE draft_id = ? ORDER BY ordinal",
        (index_id, document_id, draft.id),
    ).rowcount
    if copied != draft.chunks:
        raise ValueError(f"This is a bug: {copied} of {draft.chunks} chunks are staged")
