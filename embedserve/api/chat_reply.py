"""The answer of a chat on its way: ends when the client leaves, and tells what goes wrong."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import orjson
from fastapi import Response
from starlette.types import Receive, Scope, Send

from embedserve.api.errors import BUG, respond, status_of
from embedserve.api.exchange import Answer, Header, unless_left
from embedserve.errors import EmbedserveError

logger = logging.getLogger(__name__)

EARLY_S = 1.0
"""After which a user sees what was found, though the model is silent still. An error that comes
later has no status of its own any more."""
SSE: list[Header] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]
LINES: list[Header] = [(b"content-type", b"application/x-ndjson")]
JSON: list[Header] = [(b"content-type", b"application/json; charset=utf-8")]


class ChatReply(Response):
    """Does the work that writes the answer."""

    def __init__(self, work: Callable[[Answer], Coroutine[None, None, None]]) -> None:
        super().__init__()
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; drop the work, and what it asked of others, when the client has left."""
        answer = Answer(send, scope["path"])
        await unless_left(self._finish(answer, scope), _leaving(receive), answer)

    async def _finish(self, answer: Answer, scope: Scope) -> None:
        try:
            await self._work(answer)
        except EmbedserveError as error:
            if answer.has_started:
                await answer.end_with(status_of(error), error.message)
            else:
                await respond(answer.path, error)(scope, _nothing_more, answer.send)
        except Exception:
            logger.exception("unexpected failure in POST %s", answer.path)
            await answer.end_with(500, BUG)


@asynccontextmanager
async def opened(
    exchange: AbstractAsyncContextManager[httpx.Response],
    early: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[httpx.Response]:
    """Give what an upstream answers; where that takes more than a second, call `early` then."""
    async with AsyncExitStack() as stack:
        opening = asyncio.ensure_future(stack.enter_async_context(exchange))
        try:
            await asyncio.wait({opening}, timeout=EARLY_S)
            if early and not opening.done():
                await early()
            response = await opening
        finally:
            opening.cancel()
            await asyncio.wait({opening})
        yield response


async def pass_on(response: httpx.Response, answer: Answer) -> None:
    """Answer with what the upstream answered, byte for byte; or say its error in a stream."""
    if answer.has_started:
        await response.aread()
        await answer.end_with(502, error_text(response.status_code, response.content))
        return
    await answer.start(response)
    async for part in response.aiter_raw():
        await answer.add(part)
    await answer.end()


def error_text(status: int, body: bytes) -> str:
    """Return the words of an upstream's error, whichever dialect it is in."""
    try:
        told = orjson.loads(body)["error"]
        words = told["message"] if isinstance(told, dict) else told
    except (orjson.JSONDecodeError, KeyError, TypeError):
        words = body[:500].decode(errors="replace").strip()
    return str(words) or f"The upstream answered with status {status}."


async def whole(answer: Answer, value: object) -> None:
    """Answer with one JSON value."""
    body = orjson.dumps(value)
    await answer.begin(200, [*JSON, (b"content-length", b"%d" % len(body))])
    await answer.end(body)


async def cut(parts: AsyncIterator[bytes], ends: tuple[bytes, ...]) -> AsyncIterator[bytes]:
    """Cut a stream after each of the ends, which must not be the beginning of one another."""
    waiting = b""
    async for part in parts:
        waiting += part
        while place := min((waiting.find(end) + len(end) for end in ends if end in waiting),
                           default=0):  # fmt: skip
            yield waiting[:place]
            waiting = waiting[place:]
    if waiting:
        yield waiting


def object_of(text: bytes) -> dict[str, Any] | None:
    """Return the JSON object that a text is, if it is one."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


async def _leaving(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # nothing else is of interest here


async def _nothing_more() -> dict[str, Any]:
    return {"type": "http.disconnect"}
