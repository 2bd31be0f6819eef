"""Documents that were sent, and the list of all documents whatever their source.

The bytes are files (store/upload_files.py); which of them count is said here.
"""

import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from embedserve.errors import IndexNotFoundError
from embedserve.store.database import Database, now
from embedserve.store.document_rows import remove_document
from embedserve.store.filter_sql import Value, condition_of, metadata_keys_of
from embedserve.store.jobs import insert_job
from embedserve.store.rows import PROBLEM_COLUMNS, read_problem
from embedserve.store.snapshot_cache import SnapshotCache
from embedserve.types import Filter, Index, IndexCounts, Job, ListedDocument, StoredUpload

UPLOADS_PATH = "upload:"
"""How the path of a job on uploads begins; folders begin with a slash."""

LISTED = f"""
WITH listed AS (
  SELECT d.id, d.path, d.source, d.title, d.kind, d.size_bytes, d.sha256, d.metadata,
    d.indexed_at, u.job_id IS NOT NULL AS is_pending, {PROBLEM_COLUMNS}, d.mtime_ns, d.index_id
  FROM documents d LEFT JOIN uploads u ON u.index_id = d.index_id AND u.path = d.path
  WHERE d.index_id = ?
  UNION ALL
  SELECT NULL, u.path, 'upload', u.title, '', u.size_bytes, '', u.metadata,
    u.uploaded_at, 1, NULL, NULL, NULL, NULL, NULL, 0, u.index_id
  FROM uploads u WHERE u.index_id = ? AND NOT EXISTS (
    SELECT 1 FROM documents d WHERE d.index_id = u.index_id AND d.path = u.path)
)
"""

COUNTS = f"""
{LISTED}, seen AS (SELECT id, problem_code FROM listed WHERE {{condition}}),
found AS (SELECT c.text_hash FROM seen s CROSS JOIN chunks c ON c.document_id = s.id)
SELECT
  (SELECT count(*) FROM seen s WHERE EXISTS (SELECT 1 FROM chunks c WHERE c.document_id = s.id)),
  (SELECT count(*) FROM seen WHERE problem_code IS NOT NULL),
  (SELECT count(*) FROM found),
  (SELECT count(*) FROM found f JOIN indexes i ON i.id = ?
     JOIN vectors v ON v.artefact = i.artefact AND v.text_hash = f.text_hash),
  (SELECT count(DISTINCT text_hash) FROM found)
"""

SAVE_UPLOAD = """
INSERT INTO uploads (index_id, path, stored, size_bytes, title, metadata, uploaded_at, job_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (index_id, path) DO UPDATE SET
  stored = excluded.stored, size_bytes = excluded.size_bytes, title = excluded.title,
  metadata = excluded.metadata, uploaded_at = excluded.uploaded_at, job_id = excluded.job_id
"""

ADOPT = """
UPDATE uploads SET job_id = :job WHERE index_id = :index AND CASE
  WHEN job_id IS NULL THEN path IN (
    SELECT path FROM documents WHERE index_id = :index AND problem_is_retryable)
  ELSE job_id NOT IN (SELECT id FROM jobs WHERE status IN ('queued', 'running')) END
"""

# Of these names, but for what another job is to take.
TAKE = """
UPDATE uploads SET job_id = :job WHERE index_id = :index
  AND path IN (SELECT value FROM json_each(:paths))
  AND (job_id IS NULL OR job_id NOT IN (SELECT id FROM jobs WHERE status IN ('queued', 'running')))
"""


@dataclass(frozen=True)
class Accepted:
    """Uploads that were taken."""

    job: Job
    replaced: tuple[str, ...]
    """Stored files that no row names any more."""


@dataclass(frozen=True)
class Removed:
    """Documents that were deleted."""

    documents: tuple[ListedDocument, ...]
    stored: tuple[str, ...]
    """Stored files that no row names any more."""


MOST_KEPT = 64
"""Indexes whose metadata keys are remembered, until anything is written."""


class Uploads:
    """Take uploads, give them to their job, list and delete documents."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._keys: SnapshotCache[frozenset[str]] = SnapshotCache(database, most=MOST_KEPT)

    def accept(self, index: Index, uploads: Sequence[StoredUpload]) -> Accepted:
        """Note uploads whose files are in place, and queue their job, in one transaction."""
        path = UPLOADS_PATH + (uploads[0].path if len(uploads) == 1 else "")
        with self._database.write() as connection:
            if not connection.execute("SELECT 1 FROM indexes WHERE id = ?", (index.id,)).fetchone():
                raise IndexNotFoundError(f"Index `{index.name}` was deleted a moment ago.")
            job = insert_job(connection, index.name, path)
            replaced = []
            for upload in uploads:
                replaced += _stored(connection, index.id, upload.path)
                facts = (upload.size_bytes, upload.title, upload.metadata, now(), job.id)
                row = (index.id, upload.path, upload.stored, *facts)
                connection.execute(SAVE_UPLOAD, row)
        return Accepted(job, tuple(replaced))

    def adopt(self, index_id: int, job_id: str) -> None:
        """Give a job what others left: they failed or were cancelled, or the file may do now."""
        with self._database.write() as connection:
            connection.execute(ADOPT, {"job": job_id, "index": index_id})

    def take(self, index_id: int, job_id: str, paths: Collection[str]) -> None:
        """Give a job the uploads of these names, whether they could be read before or not."""
        values = {"job": job_id, "index": index_id, "paths": json.dumps(list(paths))}
        with self._database.write() as connection:
            connection.execute(TAKE, values)

    def of_job(self, index_id: int, job_id: str) -> list[StoredUpload]:
        """List what a job has yet to ingest."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT path, stored, size_bytes, title, metadata FROM uploads"
                " WHERE job_id = ? AND index_id = ? ORDER BY path",
                (job_id, index_id),
            )
            return [StoredUpload(*row) for row in rows]

    def count_pending(self, index_id: int) -> int:
        """Return how many uploads of an index wait for a job."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT count(*) FROM uploads WHERE index_id = ? AND job_id IS NOT NULL",
                (index_id,),
            ).fetchone()
        return int(row[0])

    def paths(self, index_id: int) -> set[str]:
        """Return the names of all uploads of an index."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT path FROM uploads WHERE index_id = ?", (index_id,))
            return {row[0] for row in rows}

    def stored(self) -> dict[int, set[str]]:
        """Return every stored file that counts, by index."""
        found: dict[int, set[str]] = {}
        with self._database.read() as connection:
            for index_id, stored in connection.execute("SELECT index_id, stored FROM uploads"):
                found.setdefault(index_id, set()).add(stored)
        return found

    def page(
        self, index_id: int, wanted: Filter, *, limit: int, offset: int = 0
    ) -> list[ListedDocument]:
        """List documents by path."""
        with self._database.read() as connection:
            return _listed(connection, index_id, wanted, (limit, offset))

    def count(self, index_id: int, wanted: Filter) -> int:
        """Count the documents that meet a filter, those that wait for their job among them."""
        condition = condition_of(wanted, "listed")
        with self._database.read() as connection:
            row = connection.execute(
                f"{LISTED} SELECT count(*) FROM listed WHERE {condition.sql}",
                (index_id, index_id, *condition.values),
            ).fetchone()
        return int(row[0])

    def counts(self, index_id: int, wanted: Filter) -> IndexCounts:
        """Count what an index holds of the documents that meet a filter; nothing pends of them."""
        condition = condition_of(wanted, "listed")
        with self._database.read() as connection:
            row = connection.execute(
                COUNTS.format(condition=condition.sql),
                (index_id, index_id, *condition.values, index_id),
            ).fetchone()
        return IndexCounts(*(*row, 0))

    def find(self, index_id: int, path: str) -> ListedDocument | None:
        """Return one document."""
        with self._database.read() as connection:
            rows = _rows(connection, index_id, "listed.path = ?", (path,), (1, 0))
        return rows[0] if rows else None

    def metadata_keys(self, index_id: int) -> frozenset[str]:
        """Return every metadata key that a document of an index has."""

        def load() -> frozenset[str]:
            with self._database.read() as connection:
                return metadata_keys_of(connection, index_id)

        return self._keys.get(index_id, load)

    def remove(self, index: Index, path: str) -> Removed:
        """Delete one document; nothing when there is none."""
        with self._database.write() as connection:
            found = _rows(connection, index.id, "listed.path = ?", (path,), (1, 0))
            return _remove(connection, index.id, found)

    def remove_matching(self, index: Index, wanted: Filter) -> Removed:
        """Delete every document that meets the filter, or none."""
        with self._database.write() as connection:
            return _remove(connection, index.id, _listed(connection, index.id, wanted, (-1, 0)))


def _remove(
    connection: sqlite3.Connection, index_id: int, found: Sequence[ListedDocument]
) -> Removed:
    stored: list[str] = []
    for document in found:
        remove_document(connection, index_id, document.path)
        stored += _stored(connection, index_id, document.path)
        connection.execute(
            "DELETE FROM uploads WHERE index_id = ? AND path = ?", (index_id, document.path)
        )
    return Removed(tuple(found), tuple(stored))


def _stored(connection: sqlite3.Connection, index_id: int, path: str) -> list[str]:
    rows = connection.execute(
        "SELECT stored FROM uploads WHERE index_id = ? AND path = ?", (index_id, path)
    )
    return [row[0] for row in rows]


def _listed(
    connection: sqlite3.Connection, index_id: int, wanted: Filter, page: tuple[int, int]
) -> list[ListedDocument]:
    condition = condition_of(wanted, "listed")
    return _rows(connection, index_id, condition.sql, condition.values, page)


def _rows(
    connection: sqlite3.Connection,
    index_id: int,
    condition: str,
    values: Sequence[Value],
    page: tuple[int, int],
) -> list[ListedDocument]:
    rows = connection.execute(
        f"{LISTED} SELECT listed.*,"
        " (SELECT count(*) FROM chunks c WHERE c.document_id = listed.id)"
        f" FROM listed WHERE {condition} ORDER BY listed.path LIMIT ? OFFSET ?",
        (index_id, index_id, *values, *page),
    )
    return [_listed_document(row) for row in rows]


def _listed_document(row: tuple[Any, ...]) -> ListedDocument:
    id_, path, source, title, kind, size_bytes, sha256, metadata, indexed_at = row[:9]
    return ListedDocument(
        id_,
        path,
        source,
        title,
        kind,
        size_bytes,
        sha256,
        metadata,
        indexed_at,
        chunks=row[17],
        is_pending=bool(row[9]),
        problem=read_problem(path, row[10:15]),
    )
