"""The dialect of Open WebUI's external document loader: `PUT /process`, a file for its text."""

import asyncio
from contextlib import closing
from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, Request, Response

from embedserve.api.replies import json_reply, services
from embedserve.api.schema_parts import DETAIL_ERROR, FILE, OBJECT, TEXT, answers, given, shape
from embedserve.api.uploads import read_content
from embedserve.types import Extraction

router = APIRouter(tags=["open webui"])

BODY = {
    "requestBody": {
        "required": True,
        "content": {FILE: {"schema": {"type": "string", "format": "binary"}}},
    },
    "parameters": [
        {
            "name": "X-Filename",
            "in": "header",
            "schema": TEXT,
            "description": "Its name, percent-encoded; its ending says how it is read.",
        }
    ],
}
_PART = shape({"page_content": TEXT, "metadata": OBJECT})
_ANSWER = given("Its text, page by page where it has pages.", {"type": "array", "items": _PART})


@router.put(
    "/process",
    openapi_extra=BODY,
    responses=answers(_ANSWER, "400 413 422 503", DETAIL_ERROR),
)
async def process(request: Request) -> Response:
    """Return the text of a file, which is not kept: for Open WebUI (external document loader)."""
    found = services(request)
    name = unquote(request.headers.get("x-filename", "")) or "document"
    upload = await asyncio.to_thread(found.extraction.receive, name)
    with closing(upload.file):
        await read_content(request, found.documents, upload)
        extraction = await asyncio.to_thread(found.extraction.read, upload)
    return json_reply(parts_of(extraction, name))


def parts_of(extraction: Extraction, name: str) -> list[dict[str, Any]]:
    """Return the text as its clients take it: a page each, or all of it."""
    told = {
        "source": name,
        "title": extraction.title,
        "kind": extraction.kind,
        "warnings": list(extraction.warnings),
    }
    if not extraction.pages:
        return [{"page_content": extraction.text, "metadata": told}]
    count = len(extraction.pages)
    return [
        {
            "page_content": extraction.text[page.start : page.end],
            # Its reader counts pages from 0, and shows them from 1.
            "metadata": {**told, "page": page.number - 1, "total_pages": count},
        }
        for page in extraction.pages
        if extraction.text[page.start : page.end].strip()
    ]
