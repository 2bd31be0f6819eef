"""Our own dialect: indexes, ingestion, queries. Shapes: docs/api.md."""

import asyncio
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from embedserve.api.body import describe_body, read_body, read_model, read_object
from embedserve.api.job_replies import job_reply, preview_reply
from embedserve.api.replies import json_reply, services
from embedserve.services.definitions import IndexDefinition, parse_definition
from embedserve.services.index_reports import IndexReport
from embedserve.services.job_progress import JobReport

router = APIRouter(tags=["indexes"])


class IngestBody(BaseModel):
    """What to ingest."""

    model_config = ConfigDict(extra="forbid", strict=True)

    path: str | None = Field(
        default=None,
        description="Absolute path of a folder or file on the server's machine, inside the "
        "allowed roots. Without it, the sources of the index's definition are ingested.",
    )
    dry_run: bool = Field(
        default=False, description="Only tell what would be done; nothing is written."
    )


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
    """Start a job that brings the index in step with a folder or file; returns the job (202).

    A dry run starts none and returns what one would have to do (200).
    """
    is_empty = not (await read_body(request)).strip()
    body = IngestBody() if is_empty else await read_model(request, IngestBody)
    ingestion = services(request).ingestion
    if body.dry_run:
        seen = await asyncio.to_thread(ingestion.preview, name, body.path)
        return json_reply({"index": name, "path": body.path, **preview_reply(seen)})
    job = await asyncio.to_thread(ingestion.submit, name, body.path)
    return json_reply(job_reply(JobReport(job)), status=202)


def index_reply(report: IndexReport) -> dict[str, Any]:
    """Return an index as the API shows it."""
    counts, change = report.counts, report.change
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
            "texts": counts.texts,
            "reachable": report.reachable,
            "pending": counts.pending,
        },
        "change": {"model": change.model, "done": report.ready, "total": counts.chunks}
        if change
        else None,
        "recall": asdict(report.recall) if report.recall else None,
        "problem": report.problem,
        "warnings": list(report.warnings),
    }
