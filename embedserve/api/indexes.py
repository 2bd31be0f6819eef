"""Our own dialect: indexes, ingestion, queries, jobs. Shapes: docs/api.md."""

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from embedserve.api.body import describe_body, read_body, read_model, read_object
from embedserve.api.hot import timeout_of
from embedserve.api.replies import json_reply, services
from embedserve.api.schema_parts import TIMEOUT
from embedserve.services.definitions import IndexDefinition, parse_definition
from embedserve.services.indexes import IndexReport
from embedserve.services.search import Hit
from embedserve.types import FileResult, Job, Outcome

router = APIRouter(tags=["indexes"])


class IngestBody(BaseModel):
    """What to ingest."""

    model_config = ConfigDict(extra="forbid", strict=True)

    path: str | None = Field(
        default=None,
        description="Absolute path of a folder or file on the server's machine, inside the "
        "allowed roots. Without it, the sources of the index's definition are ingested.",
    )


class QueryBody(BaseModel):
    """What to look for."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: str = Field(description="The question, as a person asks it.")
    k: int | None = Field(default=None, description="Hits to return; 1 to 1000.")


@router.get("/indexes")
def list_indexes(request: Request) -> Response:
    """List the indexes with their counts."""
    found = services(request).indexes
    reports = [found.describe(name) for name in found.names()]
    return json_reply(
        {"indexes": [index_reply(report) for report in reports], "problems": found.problems}
    )


@router.get("/indexes/{name}")
def get_index(request: Request, name: str) -> Response:
    """Describe one index: its definition, and counts in the catalog and the vector index."""
    return json_reply(index_reply(services(request).indexes.describe(name)))


@router.put("/indexes/{name}", openapi_extra=describe_body(IndexDefinition, is_required=False))
async def put_index(request: Request, name: str) -> Response:
    """Create an index (201) or replace its definition (200); an empty body takes the defaults."""
    is_empty = not (await read_body(request)).strip()
    value = {} if is_empty else await read_object(request)
    definition = parse_definition(value, origin="The definition")
    is_new = await asyncio.to_thread(services(request).indexes.put, name, definition)
    report = await asyncio.to_thread(services(request).indexes.describe, name)
    return json_reply(index_reply(report), status=201 if is_new else 200)


@router.delete("/indexes/{name}")
def delete_index(request: Request, name: str) -> Response:
    """Remove an index; the documents themselves stay where they are."""
    services(request).indexes.delete(name)
    return json_reply({"deleted": name})


@router.post(
    "/indexes/{name}/ingest",
    status_code=202,
    openapi_extra=describe_body(IngestBody, is_required=False),
)
async def ingest(request: Request, name: str) -> Response:
    """Start a job that brings the index in step with a folder or file; returns the job."""
    is_empty = not (await read_body(request)).strip()
    body = IngestBody() if is_empty else await read_model(request, IngestBody)
    job = await asyncio.to_thread(services(request).ingestion.submit, name, body.path)
    return json_reply(job_reply(job), status=202)


@router.post(
    "/indexes/{name}/query",
    responses={503: {"description": "The server is busy, or the request's time is over."}},
    openapi_extra={**describe_body(QueryBody), "parameters": [TIMEOUT]},
)
async def query(request: Request, name: str) -> Response:
    """Find the passages nearest to a question."""
    body = await read_model(request, QueryBody)
    timeout_s = timeout_of(request.scope["headers"])
    result = await services(request).search.query(name, body.query, body.k, timeout_s=timeout_s)
    return json_reply(
        {
            "hits": [_hit(hit) for hit in result.hits],
            "index": name,
            "model": result.model,
            "exact": result.is_exact,
            "warnings": result.warnings,
            "timings_ms": result.timings_ms,
        }
    )


@router.get("/jobs")
def list_jobs(
    request: Request,
    index: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
) -> Response:
    """List jobs, newest first."""
    jobs = services(request).ingestion.jobs(limit, index)
    return json_reply({"jobs": [job_reply(job) for job in jobs]})


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
    job = ingestion.job(job_id)
    # One more than asked for tells whether there is a next page.
    files = ingestion.files(job_id, limit=limit + 1, offset=offset, outcomes=outcome)
    next_offset = offset + limit if len(files) > limit else None
    page = [_file(result) for result in files[:limit]]
    return json_reply({**job_reply(job), "files": page, "next_offset": next_offset})


@router.post("/jobs/{job_id}/cancel")
def cancel_job(request: Request, job_id: str) -> Response:
    """Stop a job after the files in hand; what it committed stays."""
    return json_reply(job_reply(services(request).ingestion.cancel(job_id)))


def job_reply(job: Job) -> dict[str, Any]:
    """Return a job as the API shows it."""
    done = sum(job.counts.values())
    return {
        "id": job.id,
        "index": job.index,
        "path": job.path or None,
        "status": job.status,
        "progress": {"files_done": done, "files_total": job.files_total},
        "counts": job.counts,
        "chunks_embedded": job.chunks_embedded,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "error": job.error,
    }


def _file(result: FileResult) -> dict[str, Any]:
    problem = result.problem
    return {
        "path": result.path,
        "outcome": result.outcome,
        "chunks": result.chunks,
        "code": problem.code if problem else None,
        "stage": problem.stage if problem else None,
        "message": problem.message if problem else None,
        "hint": problem.hint if problem else None,
        "retryable": problem.is_retryable if problem else None,
        "warnings": list(result.warnings),
    }


def _hit(hit: Hit) -> dict[str, Any]:
    chunk = hit.chunk
    return {
        "id": str(chunk.id),
        "text": chunk.text,
        "score": round(hit.score, 6),
        "document": {
            "id": str(chunk.document_id),
            "path": chunk.path,
            "title": chunk.title,
            "metadata": json.loads(chunk.metadata),
        },
        "page": chunk.page,
        "heading": list(chunk.heading),
        "start": chunk.start,
        "end": chunk.end,
    }


def index_reply(report: IndexReport) -> dict[str, Any]:
    """Return an index as the API shows it."""
    counts = report.counts
    return {
        "name": report.index.name,
        "description": report.definition.description,
        "model": report.index.model,
        "dimensions": report.index.dimensions,
        "created_at": report.index.created_at,
        "definition": report.definition.model_dump(mode="json"),
        "counts": {
            "documents": counts.documents,
            "unreadable": counts.unreadable,
            "chunks": counts.chunks,
            "vectors": counts.vectors,
            "reachable": report.reachable,
            "pending": counts.pending,
        },
        "problem": report.problem,
        "warnings": list(report.warnings),
    }
