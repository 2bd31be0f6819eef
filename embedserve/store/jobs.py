"""Ingestion jobs: a queue in a table, with what was done to each file.

One process owns the catalog; a `runner` names one life of it, so that what a former life left
running can be told apart and taken up again.
"""

import json
import sqlite3
from collections.abc import Collection
from dataclasses import replace
from uuid import uuid4

from embedserve.errors import JobNotFoundError
from embedserve.store.database import Database, now
from embedserve.store.job_rows import add_work, write_file_result
from embedserve.store.rows import PROBLEM_COLUMNS, read_problem
from embedserve.types import FileResult, Job, JobKind, JobStatus, Outcome, Work

JOB_COLUMNS = (
    "id, index_name, path, status, created_at, started_at, finished_at, error, files_total,"
    " chunks_embedded, kind, tokens_embedded, chunks, bytes_done, bytes_total, retry_of"
)

KEPT_JOBS_WITH_FILES = 20
"""Jobs of one index whose notes on each file are kept: nightly runs of some weeks. A job on
100,000 files leaves as many rows."""
KEPT_JOBS = 200
"""Jobs of one index that stay in its history, with their counts: half a year of nightly runs."""

SET_LEFT = """
UPDATE jobs SET bytes_total = bytes_done + :bytes, files_total = :files +
  (SELECT coalesce(sum(files), 0) FROM job_counts WHERE job_id = jobs.id)
WHERE id = :job
"""

# The oldest queued job whose index is idle: two jobs on one index would race on its files.
CLAIM = """
UPDATE jobs SET status = 'running', runner = ?, started_at = coalesce(started_at, ?)
WHERE seq = (
  SELECT waiting.seq FROM jobs waiting WHERE waiting.status = 'queued' AND NOT EXISTS (
    SELECT 1 FROM jobs busy
    WHERE busy.status = 'running' AND busy.index_name = waiting.index_name)
  ORDER BY waiting.seq LIMIT 1)
RETURNING id
"""

# Every ended job of an index but the newest so many.
OLD_JOBS = """
SELECT id FROM jobs WHERE index_name = ? AND status NOT IN ('queued', 'running')
ORDER BY seq DESC LIMIT -1 OFFSET ?
"""


class Jobs:
    """Queue jobs, claim them, and record how they go."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, index: str, path: str) -> Job:
        """Queue a job on the index of that name."""
        with self._database.write() as connection:
            return insert_job(connection, index, path)

    def get(self, job_id: str) -> Job:
        """Read one job with its counts; raise JobNotFoundError when there is none."""
        with self._database.read() as connection:
            return _job(connection, job_id)

    def latest(self, limit: int, *, index: str | None = None) -> list[Job]:
        """List the newest jobs first, of every index or of one."""
        with self._database.read() as connection:
            ids = connection.execute(
                "SELECT id FROM jobs WHERE :index IS NULL OR index_name = :index"
                " ORDER BY seq DESC LIMIT :limit",
                {"index": index, "limit": limit},
            ).fetchall()
            return [_job(connection, row[0]) for row in ids]

    def claim_next(self, runner: str) -> Job | None:
        """Take the oldest queued job whose index has none running; None when all must wait."""
        with self._database.write() as connection:
            row = connection.execute(CLAIM, (runner, now())).fetchone()
            return _job(connection, row[0]) if row else None

    def requeue_orphans(self, runner: str) -> int:
        """Queue again what an earlier runner left running; return how many.

        A job that was asked to stop is cancelled instead. Only for the owner of the catalog, at
        start.
        """
        with self._database.write() as connection:
            return _requeue(connection, "runner IS NOT ?", runner)

    def requeue(self, job_id: str) -> Job:
        """Queue a running job again; one that was asked to stop is cancelled instead."""
        with self._database.write() as connection:
            _requeue(connection, "id = ?", job_id)
            return _job(connection, job_id)

    def set_totals(self, job_id: str, *, files: int, bytes_to_read: int) -> None:
        """Say how many files the job has to look at, and how much of them is still to be read."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE jobs SET files_total = ?, bytes_total = bytes_done + ? WHERE id = ?",
                (files, bytes_to_read, job_id),
            )

    def set_left(self, job_id: str, *, files: int, bytes_to_read: int) -> None:
        """Say how much the job has to do beside all that it has done."""
        with self._database.write() as connection:
            connection.execute(SET_LEFT, {"files": files, "bytes": bytes_to_read, "job": job_id})

    def add_work(self, job_id: str, work: Work) -> None:
        """Add to the sums of a job what belongs to no file."""
        with self._database.write() as connection:
            add_work(connection, job_id, work)

    def expect_bytes(self, job_id: str, count: int) -> None:
        """Add to what the job has to read."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE jobs SET bytes_total = coalesce(bytes_total, bytes_done) + ? WHERE id = ?",
                (count, job_id),
            )

    def create_retry(self, former: Job, paths: Collection[str]) -> Job:
        """Queue a job about only these files of a former one."""
        with self._database.write() as connection:
            job = insert_job(connection, former.index, former.path, retry_of=former.id)
            connection.executemany(
                "INSERT INTO job_paths (job_id, path) VALUES (?, ?)",
                ((job.id, path) for path in paths),
            )
            return job

    def paths(self, job_id: str) -> frozenset[str]:
        """Return the only files that a job is about; none for all below its path."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT path FROM job_paths WHERE job_id = ?", (job_id,))
            return frozenset(row[0] for row in rows)

    def failed_paths(self, job_id: str) -> list[str]:
        """List the files that failed in a job."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT path FROM job_files WHERE job_id = ? AND outcome = 'failed'", (job_id,)
            )
            return [row[0] for row in rows]

    def record_files(
        self, job_id: str, results: Collection[FileResult], *, only_if_absent: bool = False
    ) -> None:
        """Note what was done to files, in one transaction.

        With `only_if_absent` an earlier note stays: a resumed job finds `unchanged` what it had
        `added` before it was interrupted.
        """
        with self._database.write() as connection:
            for result in results:
                write_file_result(connection, job_id, result, only_if_absent=only_if_absent)

    def file_results(
        self,
        job_id: str,
        *,
        limit: int,
        offset: int = 0,
        outcomes: Collection[Outcome] | None = None,
    ) -> list[FileResult]:
        """List what the job did to each file, by path; only these outcomes when given."""
        wanted = list(outcomes or ())
        marks = ", ".join("?" * len(wanted))
        condition = f" AND outcome IN ({marks})" if outcomes is not None else ""
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT path, outcome, chunks, warnings, {PROBLEM_COLUMNS} FROM job_files"
                f" WHERE job_id = ?{condition} ORDER BY path LIMIT ? OFFSET ?",
                (job_id, *wanted, limit, offset),
            )
            return [
                FileResult(
                    path, outcome, chunks, read_problem(path, problem), tuple(json.loads(warnings))
                )
                for path, outcome, chunks, warnings, *problem in rows
            ]

    def finish(self, job_id: str, status: JobStatus, *, error: str | None = None) -> Job:
        """End a job; `error` says why when it failed as a whole.

        Deletes the oldest history of its index beyond KEPT_JOBS and KEPT_JOBS_WITH_FILES.
        """
        with self._database.write() as connection:
            # The deletion of its index has noted why the job ends; that stays.
            connection.execute(
                "UPDATE jobs SET status = ?, error = coalesce(error, ?), finished_at = ?,"
                " runner = NULL WHERE id = ?",
                (status, error, now(), job_id),
            )
            job = _job(connection, job_id)
            _delete_history(connection, job.index)
            return job

    def request_cancel(self, job_id: str) -> Job:
        """Cancel a queued job at once, or ask a running one to stop; an ended one stays."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE jobs SET is_cancel_requested = 1"
                " WHERE id = ? AND status IN ('queued', 'running')",
                (job_id,),
            )
            connection.execute(
                "UPDATE jobs SET status = 'cancelled', finished_at = ?"
                " WHERE id = ? AND status = 'queued'",
                (now(), job_id),
            )
            return _job(connection, job_id)

    def is_cancel_requested(self, job_id: str) -> bool:
        """Tell whether someone asked the job to stop."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT is_cancel_requested FROM jobs WHERE id = ?", (job_id,)
            ).fetchone()
            return bool(row and row[0])


def insert_job(
    connection: sqlite3.Connection,
    index: str,
    path: str,
    *,
    kind: JobKind = "ingest",
    retry_of: str | None = None,
) -> Job:
    """Queue a job, inside the caller's transaction."""
    job_id = uuid4().hex
    connection.execute(
        "INSERT INTO jobs (id, index_name, path, status, created_at, kind, retry_of)"
        " VALUES (?, ?, ?, 'queued', ?, ?, ?)",
        (job_id, index, path, now(), kind, retry_of),
    )
    return _job(connection, job_id)


def _requeue(connection: sqlite3.Connection, condition: str, value: str) -> int:
    connection.execute(
        "UPDATE jobs SET status = 'cancelled', finished_at = ?, runner = NULL"
        f" WHERE status = 'running' AND is_cancel_requested AND {condition}",
        (now(), value),
    )
    return connection.execute(
        f"UPDATE jobs SET status = 'queued', runner = NULL"
        f" WHERE status = 'running' AND {condition}",
        (value,),
    ).rowcount


def _delete_history(connection: sqlite3.Connection, index: str) -> None:
    connection.execute(
        f"DELETE FROM job_files WHERE job_id IN ({OLD_JOBS})", (index, KEPT_JOBS_WITH_FILES)
    )
    connection.execute(f"DELETE FROM jobs WHERE id IN ({OLD_JOBS})", (index, KEPT_JOBS))


def _job(connection: sqlite3.Connection, job_id: str) -> Job:
    row = connection.execute(f"SELECT {JOB_COLUMNS} FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise JobNotFoundError(f"Job `{job_id}` does not exist. List the jobs to see their ids.")
    counts = connection.execute(
        "SELECT outcome, files FROM job_counts WHERE job_id = ? AND files > 0", (job_id,)
    )
    return replace(Job(*row), counts=dict(counts.fetchall()))
