"""Calls an ASGI application without a server."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass
class Answer:
    """What came back."""

    status: int = 0
    headers: Headers = field(default_factory=Headers)
    body: bytes = b""


async def answer_ok(scope: Scope, receive: Receive, send: Send) -> None:
    """Be an application that answers 200."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"vary", b"A")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def call(
    app: ASGIApp, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
) -> Answer:
    """Send one request without a body."""
    answer = Answer()
    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = Headers(raw=message["headers"])
        answer.body += message.get("body", b"")

    scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b""}
    await app(scope, receive, send)
    return answer


def called(
    app: ASGIApp, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
) -> Answer:
    """Send one request without a body, outside of any event loop."""
    return asyncio.run(call(app, path, method=method, headers=headers))
