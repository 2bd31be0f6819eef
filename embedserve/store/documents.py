"""Documents and how they change: each public method is one transaction.

A reader sees a file's old chunks or its new ones, never a mixture, and every change is logged for
the vector index in the transaction that makes it.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from embedserve.errors import IndexNotFoundError
from embedserve.store.database import Database, now
from embedserve.store.jobs import write_file_result
from embedserve.store.rows import PROBLEM_COLUMNS, Row, problem_row, read_problem, to_blob
from embedserve.types import (
    FROM_FOLDER,
    FileResult,
    FoundFile,
    Index,
    KnownFile,
    NewDocument,
    Outcome,
    Provenance,
)

SAVE_DOCUMENT = f"""
INSERT INTO documents
  (index_id, path, size_bytes, mtime_ns, sha256, title, kind, indexed_at, source, metadata, etag,
   last_modified, {PROBLEM_COLUMNS})
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (index_id, path) DO UPDATE SET
  size_bytes = excluded.size_bytes, mtime_ns = excluded.mtime_ns, sha256 = excluded.sha256,
  title = excluded.title, kind = excluded.kind, indexed_at = excluded.indexed_at,
  source = excluded.source, metadata = excluded.metadata, etag = excluded.etag,
  last_modified = excluded.last_modified,
  problem_code = excluded.problem_code, problem_stage = excluded.problem_stage,
  problem_message = excluded.problem_message, problem_hint = excluded.problem_hint,
  problem_is_retryable = excluded.problem_is_retryable
RETURNING id
"""

# The first version's title and kind belong to the chunks that stay, so they stay as well.
SAVE_PROBLEM = SAVE_DOCUMENT.replace("title = excluded.title, kind = excluded.kind, ", "")


class Documents:
    """Replace, delete and look up the files of an index."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def known_files(self, index_id: int, under: str) -> dict[str, KnownFile]:
        """Map path to what is known, for `under` itself and every file below that folder.

        Uploads and addresses are not among them: they belong to no folder.
        """
        first = under.rstrip(os.sep) + os.sep
        # A range over the unique index; LIKE would read `%` and `_` in a path as wildcards.
        after_last = first[:-1] + chr(ord(os.sep) + 1)
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT path, size_bytes, mtime_ns, sha256, {PROBLEM_COLUMNS} FROM documents"
                " WHERE index_id = ? AND (path = ? OR (path >= ? AND path < ?))"
                " AND source = 'folder' ORDER BY path",
                (index_id, under, first, after_last),
            )
            return {
                path: KnownFile(path, size_bytes, mtime_ns, sha256, read_problem(path, problem))
                for path, size_bytes, mtime_ns, sha256, *problem in rows
            }

    def known_at(self, index_id: int, paths: Iterable[str]) -> dict[str, KnownFile]:
        """Map path to what is known, for those of these paths that are, whatever their source."""
        return self._known(index_id, "path IN (SELECT value FROM json_each(?))", _json(paths))

    def known_addresses(self, index_id: int) -> dict[str, KnownFile]:
        """Map address to what is known, for all that was fetched."""
        return self._known(index_id, "source = ?", "url")

    def _known(self, index_id: int, condition: str, value: str) -> dict[str, KnownFile]:
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT path, size_bytes, mtime_ns, sha256, source, metadata, etag, last_modified,"
                f" {PROBLEM_COLUMNS} FROM documents WHERE index_id = ? AND {condition}",
                (index_id, value),
            )
            return {row[0]: _known_file(row) for row in rows}

    def commit(self, index: Index, document: NewDocument, *, job_id: str, outcome: Outcome) -> None:
        """Replace a path's chunks by those of its new version, and note it in the job.

        Does nothing for an upload that was replaced or deleted since the job took it.
        Raises IndexNotFoundError when the index was deleted meanwhile.
        """
        _check(index, document)
        facts = (document.size_bytes, document.mtime_ns, document.sha256)
        values = (index.id, document.path, *facts, document.title, document.kind, now())
        origin = document.provenance
        result = FileResult(
            document.path, outcome, chunks=len(document.chunks), warnings=document.warnings
        )
        with self._database.write() as connection:
            _require(connection, index)
            if not end_upload(connection, index.id, document.path, origin.stored):
                return
            remove_chunks(connection, index.id, document.path)
            row = connection.execute(
                SAVE_DOCUMENT, (*values, *_origin_row(origin), *problem_row(None))
            ).fetchone()
            _insert_vectors(connection, index, document)
            _insert_chunks(connection, index.id, row[0], document)
            write_file_result(connection, job_id, result)

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
        origin = file.provenance
        values = (index.id, file.path, *facts, title, "", now(), *_origin_row(origin))
        with self._database.write() as connection:
            _require(connection, index)
            if not end_upload(connection, index.id, file.path, origin.stored):
                return
            if not keep_previous:
                remove_chunks(connection, index.id, file.path)
            connection.execute(SAVE_PROBLEM, (*values, *problem_row(file.problem))).fetchone()
            result = FileResult(file.path, outcome, problem=file.problem)
            write_file_result(connection, job_id, result)

    def delete(self, index: Index, path: str, *, job_id: str) -> None:
        """Forget a file and its chunks, and note it in the job."""
        with self._database.write() as connection:
            _require(connection, index)
            remove_document(connection, index.id, path)
            write_file_result(connection, job_id, FileResult(path, "deleted"))

    def touch(self, index: Index, file: FoundFile, origin: Provenance = FROM_FOLDER) -> None:
        """Note new times and marks for bytes that are still the same."""
        facts = (file.mtime_ns, file.size_bytes, origin.etag, origin.last_modified)
        with self._database.write() as connection:
            connection.execute(
                "UPDATE documents SET mtime_ns = ?, size_bytes = ?, etag = ?, last_modified = ?"
                " WHERE index_id = ? AND path = ?",
                (*facts, index.id, file.path),
            )


def _json(values: Iterable[str]) -> str:
    return json.dumps(list(values))


def _known_file(row: tuple[Any, ...]) -> KnownFile:
    path, size_bytes, mtime_ns, sha256, source, metadata, etag, last_modified, *problem = row
    origin = Provenance(source, metadata, etag, last_modified)
    return KnownFile(path, size_bytes, mtime_ns, sha256, read_problem(path, problem), origin)


def _origin_row(origin: Provenance) -> Row:
    return (origin.source, origin.metadata, origin.etag, origin.last_modified)


def _check(index: Index, document: NewDocument) -> None:
    """Refuse what would only fail later, in the vector index, again and again."""
    count = len(document.chunks)
    if len(document.text_hashes) != count or document.vectors.shape != (count, index.dimensions):
        raise ValueError(
            f"This is a bug: `{document.path}` has {count} chunks, {len(document.text_hashes)} "
            f"hashes and vectors of shape {document.vectors.shape} for {index.dimensions} "
            "dimensions"
        )
    if not np.isfinite(document.vectors).all():
        raise ValueError(f"This is a bug: `{document.path}` has a vector that is not finite")


def _require(connection: sqlite3.Connection, index: Index) -> None:
    if not connection.execute("SELECT 1 FROM indexes WHERE id = ?", (index.id,)).fetchone():
        raise IndexNotFoundError(
            f"Index `{index.name}` does not exist. It was deleted while a job was at work; "
            "create it again to go on."
        )


def end_upload(connection: sqlite3.Connection, index_id: int, path: str, stored: str) -> bool:
    """Note that a job is done with an upload; tell whether it is still the present one.

    True, and nothing done, for what is no upload (`stored` is empty).
    """
    ended = connection.execute(
        "UPDATE uploads SET job_id = NULL WHERE index_id = ? AND path = ? AND stored = ?",
        (index_id, path, stored),
    )
    return not stored or ended.rowcount == 1


def remove_document(connection: sqlite3.Connection, index_id: int, path: str) -> None:
    """Forget a document and its chunks, inside the caller's transaction."""
    remove_chunks(connection, index_id, path)
    connection.execute("DELETE FROM documents WHERE index_id = ? AND path = ?", (index_id, path))


def remove_chunks(connection: sqlite3.Connection, index_id: int, path: str) -> None:
    """Delete a document's chunks and log it, inside the caller's transaction."""
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


def _insert_vectors(connection: sqlite3.Connection, index: Index, document: NewDocument) -> None:
    pairs = zip(document.text_hashes, document.vectors, strict=True)
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
