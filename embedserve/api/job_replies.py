"""Jobs as the API shows them. Shapes: docs/api.md."""

from typing import Any

from embedserve.services.file_problems import outcome_of
from embedserve.services.ingest_plan import Survey, sum_of_bytes
from embedserve.services.job_progress import JobReport
from embedserve.types import FileProblem, FileResult, Outcome

PREVIEW_FILES = 10_000
"""Files that a dry run names; all are counted."""


def job_reply(report: JobReport) -> dict[str, Any]:
    """Return a job."""
    job = report.job
    left = report.seconds_left
    return {
        "id": job.id,
        "index": job.index,
        "kind": job.kind,
        "path": job.path or None,
        "retry_of": job.retry_of,
        "status": job.status,
        "progress": {
            "stage": report.stage,
            "files_done": sum(job.counts.values()),
            "files_total": job.files_total,
            "bytes_done": report.bytes_done,
            "bytes_total": job.bytes_total,
            "chunks": job.chunks,
            "tokens": job.tokens_embedded,
            "seconds_left": None if left is None else round(left),
        },
        "counts": job.counts,
        "chunks_embedded": job.chunks_embedded,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "error": job.error,
        "problem": report.problem,
    }


def file_reply(result: FileResult) -> dict[str, Any]:
    """Return what a job did to one file."""
    return {
        "path": result.path,
        "outcome": result.outcome,
        "chunks": result.chunks,
        **_problem(result.problem),
        "warnings": list(result.warnings),
    }


def preview_reply(seen: Survey) -> dict[str, Any]:
    """Return what a job would have to do, without the files that are as they were."""
    files: list[tuple[str, Outcome, FileProblem | None]] = [
        *((file.path, "added", None) for file in seen.plan.add),
        *((file.path, "updated", None) for file in seen.plan.update),
        *((path, "deleted", None) for path in seen.plan.delete),
    ]
    problems = [file.problem for file in seen.plan.unchanged if file.problem]
    for problem in (*seen.problems, *problems):
        files.append((problem.path, outcome_of(problem), problem))
    counts: dict[str, int] = {"unchanged": len(seen.plan.unchanged) - len(problems)}
    for _, outcome, _ in files:
        counts[outcome] = counts.get(outcome, 0) + 1
    return {
        "dry_run": True,
        "counts": {outcome: count for outcome, count in counts.items() if count},
        "bytes_total": sum_of_bytes(seen.to_read),
        "files": [
            {"path": path, "outcome": outcome, **_problem(problem)}
            for path, outcome, problem in files[:PREVIEW_FILES]
        ],
        "files_left_out": max(0, len(files) - PREVIEW_FILES),
    }


def _problem(problem: FileProblem | None) -> dict[str, Any]:
    return {
        "code": problem.code if problem else None,
        "stage": problem.stage if problem else None,
        "message": problem.message if problem else None,
        "hint": problem.hint if problem else None,
        "retryable": problem.is_retryable if problem else None,
    }
