"""Documents and how they change: each public method is one transaction.

A reader sees a file's old chunks or its new ones, never a mixture, and every change is logged for
the vector index in the transaction that makes it.
"""

import json
import os
import sqlite3
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from embedserve.errors import IndexNotFoundError
from embedserve.store.database import Database, now
from embedserve.store.job_rows import add_work, write_file_result
from embedserve.store.rows import PROBLEM_COLUMNS, Row, problem_row, read_problem, to_blob
from embedserve.types import (
    FileResult,
    FoundFile,
    Index,
    KnownFile,
    NewDocument,
    Outcome,
    Vectors,
    Work,
)

SAVE_DOCUMENT = f"""
INSERT INTO documents
  (index_id, path, size_bytes, mtime_ns, sha256, title, kind, indexed_at, {PROBLEM_COLUMNS})
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (index_id, path) DO UPDATE SET
  size_bytes = excluded.size_bytes, mtime_ns = excluded.mtime_ns, sha256 = excluded.sha256,
  title = excluded.title, kind = excluded.kind, indexed_at = excluded.indexed_at,
  problem_code = excluded.problem_code, problem_stage = excluded.problem_stage,
  problem_message = excluded.problem_message, problem_hint = excluded.problem_hint,
  problem_is_retryable = excluded.problem_is_retryable
RETURNING id
"""

# The first version's title and kind belong to the chunks that stay, so they stay as well.
SAVE_PROBLEM = SAVE_DOCUMENT.replace("title = excluded.title, kind = excluded.kind, ", "")

MOVE = """
UPDATE documents SET path = ?, size_bytes = ?, mtime_ns = ?, indexed_at = ?
WHERE index_id = ? AND path = ? RETURNING id
"""

WITHOUT_VECTOR = """
SELECT count(*) FROM chunks c WHERE c.document_id = ? AND NOT EXISTS (
  SELECT 1 FROM vectors v WHERE v.artefact = ? AND v.text_hash = c.text_hash)
"""


class Documents:
    """Replace, delete and look up the files of an index."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def known_files(self, index_id: int, under: str) -> dict[str, KnownFile]:
        """Map path to what is known, for `under` itself and every file below that folder."""
        first = under.rstrip(os.sep) + os.sep
        # A range over the unique index; LIKE would read `%` and `_` in a path as wildcards.
        after_last = first[:-1] + chr(ord(os.sep) + 1)
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT path, size_bytes, mtime_ns, sha256, {PROBLEM_COLUMNS} FROM documents"
                " WHERE index_id = ? AND (path = ? OR (path >= ? AND path < ?)) ORDER BY path",
                (index_id, under, first, after_last),
            )
            return {
                path: KnownFile(path, size_bytes, mtime_ns, sha256, read_problem(path, problem))
                for path, size_bytes, mtime_ns, sha256, *problem in rows
            }

    def commit(
        self,
        index: Index,
        document: NewDocument,
        *,
        job_id: str,
        outcome: Outcome,
        work: Work | None = None,
    ) -> None:
        """Replace a path's chunks by those of its new version, and note it in the job.

        Raises IndexNotFoundError when the index was deleted meanwhile.
        """
        _check(index, document)
        facts = (document.size_bytes, document.mtime_ns, document.sha256)
        values = (index.id, document.path, *facts, document.title, document.kind, now())
        result = FileResult(
            document.path, outcome, chunks=len(document.chunks), warnings=document.warnings
        )
        with self._database.write() as connection:
            _require(connection, index)
            _remove_chunks(connection, index.id, document.path)
            row = connection.execute(SAVE_DOCUMENT, (*values, *problem_row(None))).fetchone()
            _insert_vectors(connection, index, document.new_hashes, document.vectors)
            _insert_chunks(connection, index.id, row[0], document)
            _require_vectors(connection, index, row[0], document.path)
            write_file_result(connection, job_id, result, work=work)

    def add_vectors(
        self, index: Index, hashes: Sequence[str], vectors: Vectors, *, job_id: str, work: Work
    ) -> None:
        """Keep vectors of a part of a document whose chunks come later, (len(hashes), dimensions).

        Until they do, no chunk has them; no vacuum deletes them while a job runs.
        """
        _check_vectors(index, hashes, vectors, "a part of a document")
        with self._database.write() as connection:
            _insert_vectors(connection, index, hashes, vectors)
            add_work(connection, job_id, work)

    def move(self, index: Index, former: KnownFile, file: FoundFile, *, job_id: str) -> None:
        """Give a document whose file was renamed its new path, and note both in the job."""
        with self._database.write() as connection:
            _require(connection, index)
            row = connection.execute(MOVE, (*_place(file), now(), index.id, former.path)).fetchone()
            chunks = connection.execute(
                "SELECT count(*) FROM chunks WHERE document_id = ?", row
            ).fetchone()[0]
            write_file_result(connection, job_id, FileResult(former.path, "deleted"))
            result = FileResult(file.path, "added", chunks=chunks)
            write_file_result(connection, job_id, result, work=Work(file.size_bytes))

    def titles(self, index: Index, paths: Collection[str]) -> dict[str, str]:
        """Map path to title, for those of these documents that were read and gave chunks."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT path, title FROM documents WHERE index_id = ? AND problem_code IS NULL"
                " AND path IN (SELECT value FROM json_each(?))",
                (index.id, json.dumps(list(paths))),
            )
            return dict(rows.fetchall())

    def commit_problem(
        self,
        index: Index,
        file: KnownFile,
        *,
        job_id: str,
        outcome: Outcome,
        keep_previous: bool,
    ) -> None:
        """Record why a file's present version gave no chunks; `file.problem` must be set.

        With `keep_previous` the chunks of the last readable version stay searchable.
        """
        if file.problem is None:
            raise ValueError(f"This is a bug: no problem given for `{file.path}`")
        facts = (file.size_bytes, file.mtime_ns, file.sha256)
        title = os.path.basename(file.path)
        values = (index.id, file.path, *facts, title, "", now(), *problem_row(file.problem))
        with self._database.write() as connection:
            _require(connection, index)
            if not keep_previous:
                _remove_chunks(connection, index.id, file.path)
            connection.execute(SAVE_PROBLEM, values).fetchone()
            result = FileResult(file.path, outcome, problem=file.problem)
            work = Work(bytes_read=file.size_bytes)
            write_file_result(connection, job_id, result, work=work)

    def delete(self, index: Index, path: str, *, job_id: str) -> None:
        """Forget a file and its chunks, and note it in the job."""
        with self._database.write() as connection:
            _require(connection, index)
            _remove_chunks(connection, index.id, path)
            connection.execute(
                "DELETE FROM documents WHERE index_id = ? AND path = ?", (index.id, path)
            )
            write_file_result(connection, job_id, FileResult(path, "deleted"))

    def touch(self, index: Index, file: FoundFile, *, job_id: str) -> None:
        """Note a file's new times for bytes that are still the same."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE documents SET size_bytes = ?, mtime_ns = ? WHERE index_id = ? AND path = ?",
                (file.size_bytes, file.mtime_ns, index.id, file.path),
            )
            add_work(connection, job_id, Work(bytes_read=file.size_bytes))


def _place(file: FoundFile) -> Row:
    return file.path, file.size_bytes, file.mtime_ns


def _check(index: Index, document: NewDocument) -> None:
    """Refuse what would only fail later, in the vector index, again and again."""
    count = len(document.chunks)
    if len(document.text_hashes) != count:
        raise ValueError(
            f"This is a bug: `{document.path}` has {count} chunks and "
            f"{len(document.text_hashes)} hashes"
        )
    _check_vectors(index, document.new_hashes, document.vectors, f"`{document.path}`")


def _check_vectors(index: Index, hashes: Sequence[str], vectors: Vectors, whose: str) -> None:
    if vectors.shape != (len(hashes), index.dimensions):
        raise ValueError(
            f"This is a bug: {whose} has {len(hashes)} hashes and vectors of shape "
            f"{vectors.shape} for {index.dimensions} dimensions"
        )
    if not np.isfinite(vectors).all():
        raise ValueError(f"This is a bug: {whose} has a vector that is not finite")


def _require(connection: sqlite3.Connection, index: Index) -> None:
    if not connection.execute("SELECT 1 FROM indexes WHERE id = ?", (index.id,)).fetchone():
        raise IndexNotFoundError(
            f"Index `{index.name}` does not exist. It was deleted while a job was at work; "
            "create it again to go on."
        )


def _remove_chunks(connection: sqlite3.Connection, index_id: int, path: str) -> None:
    row = connection.execute(
        "SELECT id FROM documents WHERE index_id = ? AND path = ?", (index_id, path)
    ).fetchone()
    if row is None:
        return
    connection.execute(
        "INSERT INTO changes (index_id, chunk_id, op)"
        " SELECT index_id, id, 'delete' FROM chunks WHERE document_id = ? ORDER BY id",
        row,
    )
    connection.execute("DELETE FROM chunks WHERE document_id = ?", row)


def _require_vectors(
    connection: sqlite3.Connection, index: Index, document_id: int, path: str
) -> None:
    without = connection.execute(WITHOUT_VECTOR, (document_id, index.artefact)).fetchone()[0]
    if without:
        raise ValueError(f"This is a bug: {without} chunks of `{path}` have no vector")


def _insert_vectors(
    connection: sqlite3.Connection, index: Index, hashes: Sequence[str], vectors: Vectors
) -> None:
    pairs = zip(hashes, vectors, strict=True)
    connection.executemany(
        "INSERT INTO vectors (artefact, text_hash, vector) VALUES (?, ?, ?)"
        # The same text has the same vector, unless what is stored was damaged.
        " ON CONFLICT (artefact, text_hash) DO UPDATE SET vector = excluded.vector"
        " WHERE length(vector) != length(excluded.vector)",
        ((index.artefact, text_hash, to_blob(vector)) for text_hash, vector in pairs),
    )


def _insert_chunks(
    connection: sqlite3.Connection, index_id: int, document_id: int, document: NewDocument
) -> None:
    connection.executemany(
        "INSERT INTO chunks (index_id, document_id, ordinal, span_start, span_end, page,"
        " heading, text_hash, text) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ((index_id, document_id, *row) for row in _chunk_rows(document)),
    )
    connection.execute(
        "INSERT INTO changes (index_id, chunk_id, op)"
        " SELECT index_id, id, 'upsert' FROM chunks WHERE document_id = ? ORDER BY id",
        (document_id,),
    )


def _chunk_rows(document: NewDocument) -> Iterator[Row]:
    for chunk, text_hash in zip(document.chunks, document.text_hashes, strict=True):
        heading = json.dumps(chunk.heading, ensure_ascii=False)
        yield (
            chunk.ordinal,
            chunk.start,
            chunk.end,
            chunk.page,
            heading,
            text_hash,
            chunk.text,
        )
