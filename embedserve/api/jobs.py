"""Our own dialect: jobs are listed, followed, cancelled, tried again. Shapes: docs/api.md."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from embedserve.api.job_events import events, feeds
from embedserve.api.job_replies import file_reply, job_reply
from embedserve.api.replies import json_reply, services
from embedserve.services.job_progress import JobReport
from embedserve.types import Outcome

router = APIRouter(tags=["jobs"])


@router.get("/jobs")
def list_jobs(
    request: Request,
    index: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> Response:
    """List jobs, newest first."""
    reports = services(request).ingestion.reports(limit, index)
    return json_reply({"jobs": [job_reply(report) for report in reports]})


@router.get("/jobs/{job_id}")
def get_job(
    request: Request,
    job_id: str,
    outcome: Annotated[list[Outcome] | None, Query()] = None,
    limit: Annotated[int, Query(ge=0, le=10_000)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**62)] = 0,
) -> Response:
    """Describe one job, with a page of what it did to each file (`outcome` filters them)."""
    ingestion = services(request).ingestion
    report = ingestion.report(job_id)
    # One more than asked for tells whether there is a next page.
    files = ingestion.files(job_id, limit=limit + 1, offset=offset, outcomes=outcome)
    next_offset = offset + limit if len(files) > limit else None
    page = [file_reply(result) for result in files[:limit]]
    return json_reply({**job_reply(report), "files": page, "next_offset": next_offset})


@router.post("/jobs/{job_id}/cancel")
def cancel_job(request: Request, job_id: str) -> Response:
    """Stop a job within a second; what it committed stays."""
    ingestion = services(request).ingestion
    ingestion.cancel(job_id)
    return json_reply(job_reply(ingestion.report(job_id)))


@router.post("/jobs/{job_id}/retry", status_code=202)
def retry_job(request: Request, job_id: str) -> Response:
    """Start a job about only the files that failed in one that has ended; returns the new job."""
    job = services(request).ingestion.retry(job_id)
    return json_reply(job_reply(JobReport(job)), status=202)


@router.get("/jobs/{job_id}/events")
async def follow_job(request: Request, job_id: str) -> Response:
    """Follow a job as server-sent events: its state at once, each change, and its end."""
    ingestion = services(request).ingestion
    await asyncio.to_thread(ingestion.job, job_id)  # 404, before anything is streamed
    return StreamingResponse(
        events(feeds(request.app, ingestion), job_id),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
