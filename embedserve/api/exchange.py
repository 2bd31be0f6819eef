"""The two halves of a request that is handed on: its body going up, its answer coming down."""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterable
from dataclasses import dataclass, field

import httpx
import orjson
from starlette.types import Message, Receive, Send

from embedserve.api.errors import error_response

logger = logging.getLogger(__name__)

Header = tuple[bytes, bytes]

# They speak of one connection, not of the message (RFC 9110, 7.6.1).
HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"trailers transfer-encoding upgrade".split()
)
_NOT_SENT_DOWN = HOP_BY_HOP | {b"server", b"date"}


@dataclass
class Answer:
    """An answer on its way down."""

    send: Send
    path: str
    media_type: bytes = b""
    has_started: bool = False
    ending: bytes = b"\n\n"
    """The last bytes that were sent."""

    async def start(self, response: httpx.Response) -> None:
        """Send status and headers, without those of the upstream's connection and pages."""
        headers = without(response.headers.raw, _NOT_SENT_DOWN)
        headers = [one for one in headers if not one[0].startswith(b"access-control-")]
        await self.begin(response.status_code, headers)

    async def begin(self, status: int, headers: list[Header]) -> None:
        """Send status and headers."""
        self.media_type = dict(headers).get(b"content-type", b"").partition(b";")[0].strip()
        self.has_started = True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def add(self, part: bytes) -> None:
        """Send a part."""
        self.ending = (self.ending + part)[-2:]
        await self.send({"type": "http.response.body", "body": part, "more_body": True})

    async def end(self, part: bytes = b"") -> None:
        """Send the last part."""
        await self.send({"type": "http.response.body", "body": part, "more_body": False})

    async def end_with(self, status: int, message: str) -> None:
        """Answer with an error, or end with one what has begun."""
        if self.has_started:
            logger.warning("an answer to %s was cut: %s", self.path, message)
            await self.fail(message)
        else:
            reply = error_response(self.path, status, message)
            await reply({"type": "http"}, _nothing, self.send)

    async def fail(self, message: str) -> None:
        """End a stream with an error in its own framing; break off what has none."""
        if self.media_type == b"application/x-ndjson":
            gap = b"" if self.ending.endswith(b"\n") else b"\n"
            await self.end(gap + orjson.dumps({"error": message}) + b"\n")
        elif self.media_type == b"text/event-stream":
            gap = b"" if self.ending == b"\n\n" else b"\n\n"
            body = bytes(error_response(self.path, 502, message).body)
            await self.end(gap + b"data: " + body + b"\n\n")
        # Otherwise the answer lacks its end, and the server closes the connection on it.


@dataclass
class Body:
    """A request's body on its way up."""

    receive: Receive
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    has_left: asyncio.Event = field(default_factory=asyncio.Event)

    async def parts(self) -> AsyncIterator[bytes]:
        """Give the parts as the client sends them; never end for one that left in between."""
        is_more = True
        while is_more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                self.has_left.set()
                # Its end is not sent: the upstream must not take a part for the whole.
                await asyncio.Event().wait()
            yield message.get("body", b"")
            is_more = message.get("more_body", False)
        self.is_over.set()

    async def wait_until_left(self) -> None:
        """Return when the client has left, during its body or after it."""
        over, left = (asyncio.ensure_future(one.wait()) for one in (self.is_over, self.has_left))
        try:
            await asyncio.wait({over, left}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            left.cancel()
        while not self.has_left.is_set():
            if (await self.receive())["type"] == "http.disconnect":
                self.has_left.set()


async def unless_left(
    work: Coroutine[None, None, None], leaving: Coroutine[None, None, None], answer: Answer
) -> None:
    """Do the work to its end, or until the client has left; a stop of the server ends it as 503."""
    working, left = asyncio.ensure_future(work), asyncio.ensure_future(leaving)
    try:
        await asyncio.wait({working, left}, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        # Only a stop whose time is up cancels; the event loop ends right after it.
        working.cancel()
        left.cancel()
        await answer.end_with(503, "The server is stopping; send the request again later.")
        return
    working.cancel()
    left.cancel()
    # To the end: only then is the upstream's connection closed.
    ended, _ = await asyncio.gather(working, left, return_exceptions=True)
    if isinstance(ended, Exception):
        raise ended


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


def without(headers: Iterable[Header], dropped: frozenset[bytes]) -> list[Header]:
    """Return the headers but `dropped` and what `Connection` names; names in lower case."""
    found = [(name.lower(), value) for name, value in headers]
    named = {
        word.strip().lower()
        for name, value in found
        if name == b"connection"
        for word in value.split(b",")
    }
    return [one for one in found if one[0] not in dropped and one[0] not in named]
