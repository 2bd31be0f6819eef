"""The files of OpenAI's vector stores, and batches of them: documents of an index, and its jobs."""

import asyncio
import json
from typing import Any, Literal, get_args

from fastapi import Request, Response

from embedserve.api.body import describe_body, read_model
from embedserve.api.openai_files import (
    DELETED,
    ERRORS,
    list_schema,
    page_reply,
    seconds_of,
    whole_reply,
    whole_schema,
)
from embedserve.api.replies import Services, json_reply, services
from embedserve.api.schema_parts import OBJECT, TEXT, WHOLE, given, shape
from embedserve.api.vector_store_schemas import AttributesBody, BatchBody, FileBody, Page
from embedserve.api.vector_stores import router
from embedserve.errors import DocumentNotFoundError, InvalidRequestError, JobNotFoundError
from embedserve.services.filters import parse_filter
from embedserve.services.sent_files import Attachment, file_name_of, filter_of_file
from embedserve.types import (
    EVERY_DOCUMENT,
    AllOf,
    DocumentStatus,
    FieldTest,
    FileProblem,
    Filter,
    Job,
    ListedDocument,
)

__all__ = ["router"]

Status = Literal["in_progress", "completed", "failed", "cancelled"]
STATUSES: dict[DocumentStatus, Status] = {
    "pending": "in_progress",
    "indexed": "completed",
    "unreadable": "failed",
}
_DONE = ("added", "updated", "unchanged")
_FAILED = ("skipped", "failed")
_BATCH = "vsfb_"
"""Begins the id of a batch; the rest is that of its job."""

_ERROR = {"type": ["object", "null"]}
FILE = shape(
    {
        "id": TEXT,
        "object": {"enum": ["vector_store.file"]},
        "created_at": WHOLE,
        "usage_bytes": WHOLE,
        "vector_store_id": TEXT,
        "status": {"enum": [*get_args(Status)]},
        "last_error": _ERROR,
        "attributes": OBJECT,
    }
)
BATCH = shape(
    {
        "id": TEXT,
        "object": {"enum": ["vector_store.files_batch"]},
        "created_at": WHOLE,
        "vector_store_id": TEXT,
        "status": {"enum": [*get_args(Status)]},
        "file_counts": OBJECT,
    }
)
CONTENT = "vector_store.file_content.page"
_CONTENT = whole_schema(CONTENT, shape({"type": TEXT, "text": TEXT}))


# -- files ------------------------------------------------------------------------------------


@router.post(
    "/{name}/files",
    openapi_extra=describe_body(FileBody),
    responses={200: given("It is taken.", FILE), **ERRORS},
)
async def add_file(request: Request, name: str) -> Response:
    """Put a file into a vector store."""
    body = await read_model(request, FileBody)
    return json_reply(await _attached(services(request), name, body.attachment()))


@router.post(
    "/{name}/files/{file_id}",
    openapi_extra=describe_body(AttributesBody),
    responses={200: given("It is taken.", FILE), **ERRORS},
)
async def change_file(request: Request, name: str, file_id: str) -> Response:
    """Give a file of a vector store other attributes; nothing is embedded again."""
    body = await read_model(request, AttributesBody)
    found = services(request)
    await asyncio.to_thread(_sent, found, name, file_id)  # 404 where it is none of its files
    return json_reply(await _attached(found, name, Attachment(file_id, body.attributes)))


async def _attached(found: Services, name: str, one: Attachment) -> dict[str, Any]:
    await asyncio.to_thread(found.files.attach, name, [one])
    document = await asyncio.to_thread(_sent, found, name, one.file_id)
    return (await asyncio.to_thread(_replies, found, name, [document]))[0]


@router.get("/{name}/files", responses={200: given("Files.", list_schema(FILE)), **ERRORS})
def list_files(request: Request, name: str, asked: Page) -> Response:
    """List the files of a vector store by path: every document of the index is one."""
    found = services(request)
    if asked.order == "desc":
        raise InvalidRequestError("`order` is `asc` here, by path. Leave it out.", field="order")
    return _listed(found, name, asked)


def _listed(found: Services, name: str, asked: Page, *also: Filter) -> Response:
    """Return a page of the files of a vector store by path, of those that meet `also` too."""
    parts = [*also]
    if asked.after:
        parts.append(FieldTest("path", "gt", (_document(found, name, asked.after).path,)))
    if asked.filter:
        statuses = {theirs: ours for ours, theirs in STATUSES.items()}
        parts.append(FieldTest("status", "in", (statuses.get(asked.filter, "pending"),)))
    wanted = AllOf(tuple(parts)) if parts else EVERY_DOCUMENT
    listed = found.documents.page(name, wanted, limit=asked.limit + 1, offset=0)
    shown = [one for one in _replies(found, name, listed) if asked.filter in (None, one["status"])]
    return json_reply(page_reply(shown, asked.limit))


@router.get("/{name}/files/{file_id}", responses={200: given("The file.", FILE), **ERRORS})
def get_file(request: Request, name: str, file_id: str) -> Response:
    """Describe a file of a vector store."""
    found = services(request)
    return json_reply(_replies(found, name, [_document(found, name, file_id)])[0])


@router.get(
    "/{name}/files/{file_id}/content", responses={200: given("Its text.", _CONTENT), **ERRORS}
)
def get_content(request: Request, name: str, file_id: str) -> Response:
    """Return the text of a file of a vector store."""
    found = services(request)
    head = found.pages.document(_document(found, name, file_id).id or 0)
    text = found.pages.read(head, max_chars=max(1, head.chars)).text
    return json_reply(whole_reply(CONTENT, [{"type": "text", "text": text}]))


@router.delete("/{name}/files/{file_id}", responses={200: given("It is out.", DELETED), **ERRORS})
def remove_file(request: Request, name: str, file_id: str) -> Response:
    """Take a file out of a vector store; the file itself stays."""
    found = services(request)
    found.documents.delete(name, _sent(found, name, file_id).path)
    return json_reply({"id": file_id, "object": "vector_store.file.deleted", "deleted": True})


def _document(found: Services, name: str, file_id: str) -> ListedDocument:
    """Return the document of a file; raise DocumentNotFoundError."""
    wanted = parse_filter(filter_of_file(file_id))
    return _first(found.documents.page(name, wanted, limit=1, offset=0), name, file_id)


def _sent(found: Services, name: str, file_id: str) -> ListedDocument:
    """Return the same to whoever may change it."""
    wanted = parse_filter(filter_of_file(file_id))
    return _first(found.documents.sent(name, wanted, limit=1), name, file_id)


def _first(listed: list[ListedDocument], name: str, file_id: str) -> ListedDocument:
    if not listed:
        raise DocumentNotFoundError(
            f"Vector store `{name}` has no file `{file_id[:100]}`. List its files."
        )
    return listed[0]


def _replies(found: Services, name: str, documents: list[ListedDocument]) -> list[dict[str, Any]]:
    """Return documents as files. What waits though no job is there was cancelled with its job."""
    statuses = dict(STATUSES)
    is_waiting = any(document.is_pending for document in documents)
    if is_waiting and not found.ingestion.has_open_job(name):
        statuses["pending"] = "cancelled"
    return [_reply(name, document, statuses[document.status]) for document in documents]


def _reply(name: str, document: ListedDocument, status: Status) -> dict[str, Any]:
    problem = document.problem
    return {
        "id": file_name_of(document.id, document.path).id,
        "object": "vector_store.file",
        "created_at": seconds_of(document.indexed_at),
        "usage_bytes": document.size_bytes,
        "vector_store_id": name,
        "status": status,
        "last_error": _error(problem) if problem else None,
        "attributes": json.loads(document.metadata),
    }


def _error(problem: FileProblem) -> dict[str, str]:
    is_unknown = problem.code == "unsupported"
    return {
        "code": "unsupported_file" if is_unknown else "invalid_file",
        "message": f"{problem.message} {problem.hint}".strip(),
    }


# -- batches ----------------------------------------------------------------------------------


@router.post(
    "/{name}/file_batches",
    openapi_extra=describe_body(BatchBody),
    responses={200: given("They are taken.", BATCH), **ERRORS},
)
async def add_batch(request: Request, name: str) -> Response:
    """Put several files into a vector store: a job, which is a batch."""
    body = await read_model(request, BatchBody)
    found = services(request)
    job = await asyncio.to_thread(found.files.attach, name, body.attachments())
    return json_reply(await asyncio.to_thread(_batch, found, job))


@router.get(
    "/{name}/file_batches/{batch_id}", responses={200: given("The batch.", BATCH), **ERRORS}
)
def get_batch(request: Request, name: str, batch_id: str) -> Response:
    """Tell how far a batch is."""
    found = services(request)
    return json_reply(_batch(found, _job(found, name, batch_id)))


@router.post(
    "/{name}/file_batches/{batch_id}/cancel",
    responses={200: given("The batch.", BATCH), **ERRORS},
)
def cancel_batch(request: Request, name: str, batch_id: str) -> Response:
    """Stop a batch; what is done of it stays."""
    found = services(request)
    job = found.ingestion.cancel(_job(found, name, batch_id).id)
    return json_reply(_batch(found, job))


@router.get(
    "/{name}/file_batches/{batch_id}/files",
    responses={200: given("Files.", list_schema(FILE)), **ERRORS},
)
def list_batch(request: Request, name: str, batch_id: str, asked: Page) -> Response:
    """List the files of a batch that are done, by path."""
    found = services(request)
    job = _job(found, name, batch_id)
    results = found.ingestion.files(job.id, limit=10_000, offset=0, outcomes=None)
    return _listed(found, name, asked, FieldTest("path", "in", tuple(one.path for one in results)))


def _job(found: Services, name: str, batch_id: str) -> Job:
    """Return the job of a batch; raise JobNotFoundError for one of another vector store."""
    job = found.ingestion.job(batch_id.removeprefix(_BATCH))
    if job.index != name or not batch_id.startswith(_BATCH):
        raise JobNotFoundError(f"Vector store `{name}` has no batch `{batch_id[:100]}`.")
    return job


def _batch(found: Services, job: Job) -> dict[str, Any]:
    """Return a job as a batch of files."""
    is_over = job.status not in ("queued", "running")
    waiting = found.documents.waiting(job)
    done = sum(job.counts.get(outcome, 0) for outcome in _DONE)
    failed = sum(job.counts.get(outcome, 0) for outcome in _FAILED)
    if not is_over and not waiting and done + failed:
        # Its last file is on its way into the index: pollers take none in progress for the end.
        done, failed, waiting = (done - 1, failed, 1) if done else (done, failed - 1, 1)
    is_cancelled = job.status == "cancelled"
    counts = {
        "in_progress": 0 if is_over else waiting,
        "completed": done,
        "failed": failed + (waiting if is_over and not is_cancelled else 0),
        "cancelled": waiting if is_cancelled else 0,
        "total": waiting + done + failed,
    }
    return {
        "id": f"{_BATCH}{job.id}",
        "object": "vector_store.files_batch",
        "created_at": seconds_of(job.created_at),
        "vector_store_id": job.index,
        "status": _status(job) if is_over else "in_progress",
        "file_counts": counts,
    }


def _status(job: Job) -> Status:
    """Return what became of a batch; with files that failed it is completed, as OpenAI's is."""
    if job.status == "cancelled":
        return "cancelled"
    return "failed" if job.status == "failed" else "completed"
