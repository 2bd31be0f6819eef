"""OpenAI's Files: sent once, put into vector stores later. Those: `vector_stores.py`."""

import asyncio
from contextlib import ExitStack
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from embedserve.api.replies import json_reply, services
from embedserve.api.schema_parts import (
    FILE,
    FLAG,
    OPENAI_ERROR,
    TEXT,
    WHOLE,
    Schema,
    answers,
    given,
    shape,
)
from embedserve.api.uploads import read_form
from embedserve.api.vector_store_schemas import Page, refuse_expiry
from embedserve.errors import InvalidRequestError
from embedserve.types import SentFile

router = APIRouter(prefix="/v1/files", tags=["files"])

FILE_SCHEMA = shape(
    {
        "id": TEXT,
        "object": {"enum": ["file"]},
        "bytes": WHOLE,
        "created_at": WHOLE,
        "filename": TEXT,
        "purpose": TEXT,
        "status": TEXT,
    }
)
DELETED = shape({"id": TEXT, "object": TEXT, "deleted": FLAG})
ERRORS = answers(None, "400 404 413 429 503", OPENAI_ERROR)
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": shape({"file": {"type": "string", "format": "binary"}, "purpose": TEXT})
            }
        },
    }
}


def list_schema(item: Schema) -> Schema:
    """Return the schema of a page of a list."""
    end: Schema = {"type": ["string", "null"]}
    return shape(
        {
            "object": {"enum": ["list"]},
            "data": {"type": "array", "items": item},
            "first_id": end,
            "last_id": end,
            "has_more": FLAG,
        }
    )


@router.post("", openapi_extra=_FORM, responses={200: given("It is kept.", FILE_SCHEMA), **ERRORS})
async def create_file(request: Request) -> Response:
    """Keep a file, to be put into vector stores."""
    found = services(request)
    with ExitStack() as stack:
        form = await read_form(request, found.documents, found.files.receive, stack)
        if len(form.files) != 1:
            raise InvalidRequestError("Send one file as `file`.", field="file")
        refuse_expiry(next((k for k in form.fields if k.startswith("expires_after")), None))
        purpose = form.fields.get("purpose", "")
        file = await asyncio.to_thread(found.files.keep, form.files[0], purpose)
    return json_reply(file_reply(file))


@router.get("", responses={200: given("Files.", list_schema(FILE_SCHEMA)), **ERRORS})
def list_files(request: Request, asked: Page) -> Response:
    """List files, the newest first unless another order is asked for."""
    # One more than asked for tells whether there is a next page.
    files = services(request).files.page(
        limit=asked.limit + 1,
        after=asked.after,
        purpose=asked.purpose,
        is_newest_first=asked.order != "asc",
    )
    return json_reply(page_reply([file_reply(file) for file in files], asked.limit))


@router.get("/{file_id}", responses={200: given("The file.", FILE_SCHEMA), **ERRORS})
def get_file(request: Request, file_id: str) -> Response:
    """Describe a file."""
    return json_reply(file_reply(services(request).files.get(file_id)))


@router.get("/{file_id}/content", response_class=Response, responses=ERRORS)
def get_content(request: Request, file_id: str) -> Response:
    """Return the bytes of a file."""
    files = services(request).files
    return StreamingResponse(files.blocks(files.get(file_id)), media_type=FILE)


@router.delete("/{file_id}", responses={200: given("It is gone.", DELETED), **ERRORS})
def delete_file(request: Request, file_id: str) -> Response:
    """Delete a file, and take it out of every vector store."""
    services(request).files.delete(file_id)
    return json_reply({"id": file_id, "object": "file", "deleted": True})


def file_reply(file: SentFile) -> dict[str, Any]:
    """Return a file as OpenAI's clients read it."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": seconds_of(file.sent_at),
        "expires_at": None,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def page_reply(items: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """Return a page of a list, of which `items` may hold one more than are shown."""
    shown = items[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > limit,
    }


def whole_schema(kind: str, item: Schema, **more: Schema) -> Schema:
    """Return the schema of a list that is never cut, as OpenAI's pages without ids are written."""
    return shape(
        {
            "object": {"enum": [kind]},
            **more,
            "data": {"type": "array", "items": item},
            "has_more": FLAG,
            "next_page": {"type": ["string", "null"]},
        }
    )


def whole_reply(kind: str, items: list[dict[str, Any]], **more: object) -> dict[str, Any]:
    """Return all of a list in one page."""
    return {"object": kind, **more, "data": items, "has_more": False, "next_page": None}


def seconds_of(time: str) -> int:
    """Return a time of the catalog in seconds since 1970."""
    return int(datetime.fromisoformat(time).timestamp())
