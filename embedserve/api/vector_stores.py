"""OpenAI's vector stores: an index is one, by its name. Their files: `vector_store_files.py`."""

import asyncio
import json
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response

from embedserve.api.body import describe_body, read_model
from embedserve.api.hot import timeout_of
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
from embedserve.api.schema_parts import OBJECT, STRINGS, TEXT, WHOLE, given, shape
from embedserve.api.vector_store_schemas import (
    ChunkingStrategy,
    Page,
    SearchBody,
    StoreBody,
    StoreChange,
    refuse_expiry,
)
from embedserve.errors import IndexNotFoundError
from embedserve.services.definitions import NAME, IndexDefinition
from embedserve.services.index_reports import IndexReport
from embedserve.services.search_request import Hit
from embedserve.services.sent_files import Attachment, file_name_of

router = APIRouter(prefix="/v1/vector_stores", tags=["vector stores"])

RESULTS = "vector_store.search_results.page"
_COUNTS = dict.fromkeys(("in_progress", "completed", "failed", "cancelled", "total"), WHOLE)
STORE = shape(
    {
        "id": TEXT,
        "object": {"enum": ["vector_store"]},
        "created_at": WHOLE,
        "name": TEXT,
        "usage_bytes": WHOLE,
        "file_counts": shape(_COUNTS),
        "status": {"enum": ["in_progress", "completed"]},
        "metadata": OBJECT,
    }
)
_RESULT = shape(
    {
        "file_id": TEXT,
        "filename": TEXT,
        "score": {"type": "number"},
        "attributes": OBJECT,
        "content": {"type": "array", "items": shape({"type": TEXT, "text": TEXT})},
    }
)
_RESULTS = whole_schema(RESULTS, _RESULT, search_query=STRINGS)


@router.post(
    "",
    openapi_extra=describe_body(StoreBody),
    responses={200: given("It was made.", STORE), **ERRORS},
)
async def create_store(request: Request) -> Response:
    """Make a vector store, which is an index."""
    body = await read_model(request, StoreBody)
    refuse_expiry(body.expires_after)
    found = services(request)
    files = [Attachment(one) for one in body.file_ids]
    for one in files:  # before there is an index that nobody asked for without them
        await asyncio.to_thread(found.files.get, one.file_id)
    name = await asyncio.to_thread(_free_name, found, body.name)
    chunks = body.chunking_strategy or ChunkingStrategy(type="auto")
    definition = IndexDefinition(
        description=body.name or body.description or "",
        metadata=body.metadata or {},
        chunking=chunks.chunking(),
    )
    await asyncio.to_thread(found.indexes.put, name, definition)
    if files:
        await asyncio.to_thread(found.files.attach, name, files)
    return json_reply(await asyncio.to_thread(_store, found, name))


def _free_name(found: Services, name: str | None) -> str:
    """Return what the index is called: the given name, where it may and is free."""
    if name and NAME.fullmatch(name):
        try:
            found.indexes.see(name)
        except IndexNotFoundError:
            return name
    return f"vs-{uuid4().hex[:24]}"


@router.get("", responses={200: given("Vector stores.", list_schema(STORE)), **ERRORS})
def list_stores(request: Request, asked: Page) -> Response:
    """List vector stores by name: every index is one."""
    found = services(request)
    names = sorted(found.indexes.names(), reverse=asked.order == "desc")
    if asked.after:
        found.indexes.see(asked.after)
        names = names[names.index(asked.after) + 1 :]
    stores = [_store(found, name) for name in names[: asked.limit + 1]]
    return json_reply(page_reply(stores, asked.limit))


@router.get("/{name}", responses={200: given("The vector store.", STORE), **ERRORS})
def get_store(request: Request, name: str) -> Response:
    """Describe a vector store."""
    return json_reply(_store(services(request), name))


@router.post(
    "/{name}",
    openapi_extra=describe_body(StoreChange),
    responses={200: given("The vector store.", STORE), **ERRORS},
)
async def change_store(request: Request, name: str) -> Response:
    """Give a vector store another name to show, or other metadata; its id stays."""
    body = await read_model(request, StoreChange)
    refuse_expiry(body.expires_after)
    found = services(request)
    definition = (await asyncio.to_thread(found.indexes.describe, name)).definition
    changes: dict[str, Any] = {"description": body.name, "metadata": body.metadata}
    given_ones = {key: value for key, value in changes.items() if value is not None}
    changed = definition.model_copy(update=given_ones)
    await asyncio.to_thread(found.indexes.put, name, changed)
    return json_reply(await asyncio.to_thread(_store, found, name))


@router.delete("/{name}", responses={200: given("It is gone.", DELETED), **ERRORS})
def delete_store(request: Request, name: str) -> Response:
    """Delete a vector store, that is an index with everything in it; files stay."""
    services(request).indexes.delete(name)
    return json_reply({"id": name, "object": "vector_store.deleted", "deleted": True})


@router.post(
    "/{name}/search",
    openapi_extra=describe_body(SearchBody),
    responses={200: given("What was found.", _RESULTS), **ERRORS},
)
async def search(request: Request, name: str) -> Response:
    """Search a vector store."""
    body = await read_model(request, SearchBody)
    asked = body.request(timeout_of(request.scope["headers"]))
    result = await services(request).search.search(name, asked)
    found = [_found(hit) for hit in result.hits]
    return json_reply(whole_reply(RESULTS, found, search_query=list(asked.queries)))


def _found(hit: Hit) -> dict[str, Any]:
    file = file_name_of(hit.chunk.document_id, hit.chunk.path)
    return {
        "file_id": file.id,
        "filename": file.name,
        "score": round(hit.score, 6),
        "attributes": json.loads(hit.chunk.metadata),
        "content": [{"type": "text", "text": hit.text}],
    }


def _store(found: Services, name: str) -> dict[str, Any]:
    """Return an index as a vector store."""
    report = found.indexes.describe(name)
    counts = _counts(report, found.documents.pending(name))
    return {
        "id": name,
        "object": "vector_store",
        "created_at": seconds_of(report.index.created_at),
        "name": report.definition.description or name,
        "usage_bytes": report.counts.vectors * report.index.dimensions * 4,  # float32
        "file_counts": counts,
        "status": "in_progress" if counts["in_progress"] else "completed",
        "expires_after": None,
        "expires_at": None,
        "last_active_at": None,
        "metadata": report.definition.metadata,
    }


def _counts(report: IndexReport, pending: int) -> dict[str, int]:
    completed, failed = report.counts.documents, report.counts.unreadable
    return {
        "in_progress": pending,
        "completed": completed,
        "failed": failed,
        "cancelled": 0,
        "total": pending + completed + failed,
    }
