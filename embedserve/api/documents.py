"""Our own dialect: documents of an index, sent, listed, deleted. Shapes: docs/api.md."""

import asyncio
import json
from contextlib import ExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from embedserve.api.body import describe_body, read_model
from embedserve.api.job_replies import job_reply
from embedserve.api.replies import json_reply, services
from embedserve.api.schema_parts import FILE
from embedserve.api.uploads import TextBody, read_content, read_files, read_texts
from embedserve.services.document_names import parse_metadata
from embedserve.services.documents import Upload
from embedserve.services.filters import FILTER_SCHEMA, parse_filter, parse_filter_text
from embedserve.services.job_progress import JobReport
from embedserve.types import AllOf, DocumentStatus, Filter, Job, ListedDocument, SourceKind

router = APIRouter(tags=["documents"])

Wait = Annotated[
    bool, Query(description="Answer when the job has ended, or after EMBEDSERVE_UPLOAD_WAIT_S.")
]
FORM = {
    "schema": {
        "type": "object",
        "properties": {
            "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
            "title": {"type": "string"},
            "metadata": {"type": "string", "description": "A JSON object, of every file."},
        },
    }
}
SENT = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": FORM,
            "application/json": {"schema": TextBody.model_json_schema()},
        },
    }
}


class ListQuery(BaseModel):
    """Which documents to list; each meets every condition that is given."""

    path: list[str] = Field(default=[], description="Globs; one of them matches.")
    id: list[int] = []
    metadata: str | None = Field(default=None, description="A JSON object: keys with their value.")
    source: SourceKind | None = None
    status: DocumentStatus | None = None
    filter: str | None = Field(default=None, description="A filter, as JSON: docs/api.md.")
    limit: int = Field(default=100, ge=1, le=1000)
    offset: int = Field(default=0, ge=0, le=2**62)


class DeleteBody(BaseModel):
    """What to delete."""

    model_config = ConfigDict(extra="forbid")

    filter: Annotated[
        dict[str, Any],
        Field(min_length=1, description="Documents that meet every condition; not empty."),
        WithJsonSchema(FILTER_SCHEMA),
    ]


def _wanted(asked: ListQuery) -> Filter:
    """Read what is to be listed: every condition is to be met."""
    given = {
        "paths": asked.path,
        "ids": asked.id,
        "metadata": parse_metadata(asked.metadata) if asked.metadata else None,
        "source": asked.source,
        "status": asked.status,
    }
    short = parse_filter({key: value for key, value in given.items() if value})
    return AllOf((short, parse_filter_text(asked.filter))) if asked.filter else short


@router.get("/indexes/{name}/documents")
def list_documents(
    request: Request,
    name: str,
    asked: Annotated[ListQuery, Query()],
) -> Response:
    """List an index's documents by path, whatever their source: those that meet a filter."""
    wanted, limit, offset = _wanted(asked), asked.limit, asked.offset
    # One more than asked for tells whether there is a next page.
    found = services(request).documents.page(name, wanted, limit=limit + 1, offset=offset)
    return json_reply(
        {
            "documents": [document_reply(document) for document in found[:limit]],
            "next_offset": offset + limit if len(found) > limit else None,
            "warnings": services(request).documents.unknown_fields(name, wanted),
        }
    )


@router.post("/indexes/{name}/documents", status_code=202, openapi_extra=SENT)
async def add_documents(request: Request, name: str, *, wait: Wait = False) -> Response:
    """Add or replace documents: files of a form, or texts as JSON. Returns the job."""
    documents = services(request).documents
    is_form = request.headers.get("content-type", "").lower().startswith("multipart/")
    read = read_files if is_form else read_texts
    with ExitStack() as stack:
        uploads = await read(request, documents, name, stack)
        job = await asyncio.to_thread(documents.accept, name, uploads)
    return await _accepted(request, job, uploads, is_waiting=wait)


@router.post(
    "/indexes/{name}/documents/delete",
    openapi_extra=describe_body(DeleteBody),
)
async def delete_documents(request: Request, name: str) -> Response:
    """Delete every document that meets a filter, all of them or none."""
    body = await read_model(request, DeleteBody)
    wanted = parse_filter(body.filter)
    found = services(request).documents
    deleted = await asyncio.to_thread(found.delete_matching, name, wanted)
    return json_reply({"deleted": deleted.documents, "warnings": deleted.warnings})


@router.get("/indexes/{name}/documents/{path:path}")
def get_document(request: Request, name: str, path: str) -> Response:
    """Describe one document."""
    return json_reply(document_reply(services(request).documents.get(name, path)))


@router.put(
    "/indexes/{name}/documents/{path:path}",
    status_code=202,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {FILE: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def put_document(
    request: Request,
    name: str,
    path: str,
    title: str = "",
    metadata: Annotated[str | None, Query(description="A JSON object.")] = None,
    *,
    wait: Wait = False,
) -> Response:
    """Add or replace one document: the body is its content, as it is. Returns the job."""
    documents = services(request).documents
    with ExitStack() as stack:
        upload = await asyncio.to_thread(documents.receive, name, path)
        stack.callback(upload.file.close)
        upload.title = title
        upload.metadata = parse_metadata(metadata) if metadata else None
        await read_content(request, documents, upload)
        job = await asyncio.to_thread(documents.accept, name, [upload])
    return await _accepted(request, job, [upload], is_waiting=wait)


@router.delete("/indexes/{name}/documents/{path:path}")
def delete_document(request: Request, name: str, path: str) -> Response:
    """Delete one document with its chunks, at once."""
    deleted = services(request).documents.delete(name, path)
    return json_reply({"deleted": deleted.documents, "warnings": deleted.warnings})


async def _accepted(
    request: Request, job: Job, uploads: list[Upload], *, is_waiting: bool
) -> Response:
    """Answer with the job and the documents: 200 when it has ended, else 202."""
    found, report = services(request), JobReport(job)
    if is_waiting:
        await _ended(request, job)
        report = await asyncio.to_thread(found.ingestion.report, job.id)
    has_ended = report.job.status not in ("queued", "running")
    names = [upload.name for upload in uploads]
    documents = await asyncio.to_thread(_named, request, job.index, names)
    reply = {"job": job_reply(report), "documents": documents}
    return json_reply(reply, status=200 if has_ended else 202)


async def _ended(request: Request, job: Job) -> None:
    """Wait for a job to end, as long as the settings allow."""
    found = services(request)
    ended = asyncio.wrap_future(found.ingestion.ended(job.id))
    await asyncio.wait([ended], timeout=found.documents.limits.wait_s)


def _named(request: Request, index: str, names: list[str]) -> list[dict[str, Any]]:
    found = services(request).documents
    return [document_reply(found.get_sent(index, name)) for name in names]


def document_reply(document: ListedDocument) -> dict[str, Any]:
    """Return a document as the API shows it."""
    problem = document.problem
    return {
        "id": None if document.id is None else str(document.id),
        "path": document.path,
        "source": document.source,
        "title": document.title,
        "kind": document.kind,
        "chunks": document.chunks,
        "size_bytes": document.size_bytes,
        "sha256": document.sha256 or None,
        "metadata": json.loads(document.metadata),
        "indexed_at": document.indexed_at,
        "status": document.status,
        "code": problem.code if problem else None,
        "message": problem.message if problem else None,
        "hint": problem.hint if problem else None,
    }
