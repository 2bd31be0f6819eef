"""Documents and how they change: each public method is one transaction.

A reader sees a file's old chunks or its new ones, never a mixture, and every change is logged for
the vector index in the transaction that makes it.
"""

import json
import os
from collections.abc import Collection, Iterable
from typing import Any

from embedserve.store.database import Database, now
from embedserve.store.document_rows import (
    check_document,
    end_upload,
    insert_chunks,
    insert_vectors,
    remove_chunks,
    remove_document,
    require_index,
    require_vectors,
    terms_of,
)
from embedserve.store.drafts import insert_staged
from embedserve.store.job_rows import add_work, write_file_result
from embedserve.store.lexical import Lexical
from embedserve.store.rows import PROBLEM_COLUMNS, Row, problem_row, read_problem
from embedserve.types import (
    FROM_FOLDER,
    FileResult,
    FoundFile,
    Index,
    KnownFile,
    NewDocument,
    Outcome,
    Provenance,
    Work,
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

MOVE = """
UPDATE documents SET path = ?, size_bytes = ?, mtime_ns = ?, indexed_at = ?
WHERE index_id = ? AND path = ? RETURNING id
"""


class Documents:
    """Replace, delete and look up the files of an index."""

    def __init__(self, database: Database, lexical: Lexical) -> None:
        self._database = database
        self._lexical = lexical

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

        Staged ones are copied; the draft is left for `Drafts.discard`.
        Does nothing for an upload that was replaced or deleted since the job took it.
        Raises IndexNotFoundError when the index was deleted meanwhile.
        """
        check_document(index, document)
        facts = (document.size_bytes, document.mtime_ns, document.sha256)
        values = (index.id, document.path, *facts, document.title, document.kind, now())
        origin = document.provenance
        chunks = len(document.chunks) + (document.draft.chunks if document.draft else 0)
        result = FileResult(document.path, outcome, chunks=chunks, warnings=document.warnings)
        terms = terms_of(index, document)
        with self._database.write() as connection:
            require_index(connection, index)
            if not end_upload(connection, index.id, document.path, origin.stored):
                return
            remove_chunks(connection, index.id, document.path)
            row = connection.execute(
                SAVE_DOCUMENT, (*values, *_origin_row(origin), *problem_row(None))
            ).fetchone()
            insert_vectors(connection, index, document.new_hashes, document.vectors)
            if document.draft:
                insert_staged(connection, index.id, row[0], document.draft)
            insert_chunks(connection, index.id, row[0], document, terms)
            require_vectors(connection, index, row[0], document.path)
            write_file_result(connection, job_id, result, work=work)
        self._lexical.came(index.id, are_waiting=terms is None)

    def move(self, index: Index, former: KnownFile, file: FoundFile, *, job_id: str) -> None:
        """Give a document whose file was renamed its new path, and note both in the job."""
        with self._database.write() as connection:
            require_index(connection, index)
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
        origin = file.provenance
        values = (index.id, file.path, *facts, title, "", now(), *_origin_row(origin))
        with self._database.write() as connection:
            require_index(connection, index)
            if not end_upload(connection, index.id, file.path, origin.stored):
                return
            if not keep_previous:
                remove_chunks(connection, index.id, file.path)
            # Title and kind are those of the version whose chunks there are.
            save = SAVE_PROBLEM if keep_previous else SAVE_DOCUMENT
            connection.execute(save, (*values, *problem_row(file.problem))).fetchone()
            result = FileResult(file.path, outcome, problem=file.problem)
            work = Work(bytes_read=file.size_bytes)
            write_file_result(connection, job_id, result, work=work)

    def delete(self, index: Index, path: str, *, job_id: str) -> None:
        """Forget a file and its chunks, and note it in the job."""
        with self._database.write() as connection:
            require_index(connection, index)
            remove_document(connection, index.id, path)
            write_file_result(connection, job_id, FileResult(path, "deleted"))

    def retry_problems(self, stages: Collection[str]) -> int:
        """Let the next job of each index read again what failed for good in one of these stages.

        Returns how many files that are.
        """
        marks = ", ".join("?" * len(stages))
        with self._database.write() as connection:
            changed = connection.execute(
                "UPDATE documents SET problem_is_retryable = 1"
                f" WHERE problem_is_retryable = 0 AND problem_stage IN ({marks})",
                tuple(stages),
            )
            return changed.rowcount

    def touch(
        self, index: Index, file: FoundFile, *, job_id: str, origin: Provenance = FROM_FOLDER
    ) -> None:
        """Note new times and marks for bytes that are still the same."""
        facts = (file.size_bytes, file.mtime_ns, origin.etag, origin.last_modified)
        with self._database.write() as connection:
            connection.execute(
                "UPDATE documents SET size_bytes = ?, mtime_ns = ?, etag = ?, last_modified = ?"
                " WHERE index_id = ? AND path = ?",
                (*facts, index.id, file.path),
            )
            add_work(connection, job_id, Work(bytes_read=file.size_bytes))


def _place(file: FoundFile) -> Row:
    return file.path, file.size_bytes, file.mtime_ns


def _json(values: Iterable[str]) -> str:
    return json.dumps(list(values))


def _known_file(row: tuple[Any, ...]) -> KnownFile:
    path, size_bytes, mtime_ns, sha256, source, metadata, etag, last_modified, *problem = row
    origin = Provenance(source, metadata, etag, last_modified)
    return KnownFile(path, size_bytes, mtime_ns, sha256, read_problem(path, problem), origin)


def _origin_row(origin: Provenance) -> Row:
    return (origin.source, origin.metadata, origin.etag, origin.last_modified)
