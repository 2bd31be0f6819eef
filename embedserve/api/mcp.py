"""The Model Context Protocol over HTTP at `/mcp`: tools for models. What they do: `tool_table.py`.

Each request stands for itself (no sessions), so that any number of servers may answer behind one
address. The SDK is loaded with the first request: a server that nobody calls so does without it.
"""

import asyncio
from importlib import import_module
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from embedserve.api.schema_parts import OBJECT

router = APIRouter(tags=["mcp"])

_PROTOCOL = "embedserve.api.mcp_protocol"
BODY = {
    "requestBody": {
        "required": True,
        "description": "A message of JSON-RPC 2.0, as the Model Context Protocol has it.",
        "content": {"application/json": {"schema": OBJECT}},
    }
}


@router.post("/mcp", openapi_extra=BODY, response_class=Response)
async def mcp(request: Request) -> Response:
    """Let a model search and read, by the Model Context Protocol (streamable HTTP)."""
    protocol: Any = await asyncio.to_thread(import_module, _PROTOCOL)
    return _Exchange(protocol, request.app.state.max_request_bytes)


class _Exchange(Response):
    """One message and its answer, which the SDK writes itself."""

    def __init__(self, protocol: Any, max_request_bytes: int) -> None:  # noqa: ANN401  a module
        super().__init__()
        self._protocol = protocol
        self._max_request_bytes = max_request_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the message and answer it."""
        limit = self._max_request_bytes
        await self._protocol.exchange(scope, receive, send, max_request_bytes=limit)
