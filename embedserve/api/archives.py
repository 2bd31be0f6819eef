"""Our own dialect: indexes as archives, out and in. Shapes: docs/api.md."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from embedserve.api.indexes import index_reply
from embedserve.api.replies import json_reply, services

router = APIRouter(tags=["indexes"])

PAGE_BYTES = 1 << 20
"""What is gathered of an upload before it is written."""


@router.get("/indexes/{name}/export")
def export(request: Request, name: str) -> Response:
    """Download an index with everything in it as one archive, as it is at this moment."""
    parts = services(request).archives.export(name)
    headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
    return StreamingResponse(parts, media_type="application/zip", headers=headers)


@router.post(
    "/indexes/import",
    status_code=201,
    openapi_extra={"requestBody": {"required": True, "content": {"application/zip": {}}}},
)
async def import_(request: Request, name: Annotated[str | None, Query()] = None) -> Response:
    """Add the index of an archive (the body), under its own name or `name`."""
    found = services(request)
    upload = await asyncio.to_thread(found.archives.open_upload)
    try:
        page = bytearray()
        async for part in request.stream():
            page += part
            if len(page) >= PAGE_BYTES:
                await asyncio.to_thread(upload.write, bytes(page))
                page.clear()
        await asyncio.to_thread(upload.write, bytes(page))
        index = await asyncio.to_thread(found.archives.take, upload, name)
    finally:
        upload.close()
    report = await asyncio.to_thread(found.indexes.describe, index.name)
    return json_reply(index_reply(report), status=201)
