"""Rows of jobs that other tables' transactions write as well."""

import json
import sqlite3

from embedserve.store.database import now
from embedserve.store.rows import PROBLEM_COLUMNS, problem_row
from embedserve.types import FileResult, Work

SAVE_RESULT = f"""
INSERT OR REPLACE INTO job_files (job_id, path, outcome, chunks, warnings, {PROBLEM_COLUMNS})
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""

ADD_TO_COUNT = """
INSERT INTO job_counts (job_id, outcome, files) VALUES (?, ?, ?)
ON CONFLICT (job_id, outcome) DO UPDATE SET files = files + excluded.files
"""

ADD_WORK = """
UPDATE jobs SET chunks = chunks + ?, bytes_done = bytes_done + ?,
  chunks_embedded = chunks_embedded + ?, tokens_embedded = tokens_embedded + ?
WHERE id = ?
"""


def write_file_result(
    connection: sqlite3.Connection,
    job_id: str,
    result: FileResult,
    *,
    work: Work | None = None,
    only_if_absent: bool = False,
) -> None:
    """Note what a job did to one file and what that took, inside the caller's transaction."""
    former = connection.execute(
        "SELECT outcome FROM job_files WHERE job_id = ? AND path = ?", (job_id, result.path)
    ).fetchone()
    if former and only_if_absent:
        return
    warnings = json.dumps(result.warnings)
    facts = (result.path, result.outcome, result.chunks, warnings)
    connection.execute(SAVE_RESULT, (job_id, *facts, *problem_row(result.problem)))
    if former:
        connection.execute(ADD_TO_COUNT, (job_id, former[0], -1))
    connection.execute(ADD_TO_COUNT, (job_id, result.outcome, 1))
    if work:
        add_work(connection, job_id, work, chunks=result.chunks)


def add_work(connection: sqlite3.Connection, job_id: str, work: Work, *, chunks: int = 0) -> None:
    """Add to the sums of a job, in the caller's transaction."""
    sums = (chunks, work.bytes_read, work.chunks_embedded, work.tokens_embedded)
    connection.execute(ADD_WORK, (*sums, job_id))


def cancel_jobs(connection: sqlite3.Connection, index: str, error: str) -> None:
    """End the queued jobs of an index and ask its running one to stop, in the caller's transaction.

    A running job that is cut off is cancelled by `requeue_orphans`, not run again.
    """
    connection.execute(
        "UPDATE jobs SET is_cancel_requested = 1, error = ?"
        " WHERE index_name = ? AND status IN ('queued', 'running')",
        (error, index),
    )
    connection.execute(
        "UPDATE jobs SET status = 'cancelled', finished_at = ?"
        " WHERE index_name = ? AND status = 'queued'",
        (now(), index),
    )


def forget_names(connection: sqlite3.Connection, index: str) -> None:
    """Take the names of documents out of the jobs of an index, in the caller's transaction."""
    of_index = "(SELECT id FROM jobs WHERE index_name = ?)"
    connection.execute(f"DELETE FROM job_files WHERE job_id IN {of_index}", (index,))
    connection.execute(f"DELETE FROM job_paths WHERE job_id IN {of_index}", (index,))
    connection.execute("UPDATE jobs SET path = '' WHERE index_name = ?", (index,))
