"""Hands a request to the upstream and its answer back, both as they come. Decides nothing.

Nothing is held: what the client sends goes up and what the upstream answers comes down part by
part; who leaves ends the other side. Redirects are answers like others.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

import httpx
import orjson
from starlette.types import Message, Receive, Scope, Send

from embedserve.api.errors import error_response

logger = logging.getLogger(__name__)

Header = tuple[bytes, bytes]

# They speak of one connection, not of the message (RFC 9110, 7.6.1).
_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    b"trailers transfer-encoding upgrade".split()
)
# `Origin`: the page was let in here, and the upstream has a list of its own.
_NOT_SENT_UP = _HOP_BY_HOP | {b"host", b"expect", b"origin"}
_NOT_SENT_DOWN = _HOP_BY_HOP | {b"server", b"date"}
_KEY_HEADERS = frozenset((b"authorization", b"x-api-key", b"api-key"))
_SILENT = (httpx.ReadTimeout, httpx.WriteTimeout)
_AWAY = (httpx.ConnectError, httpx.TimeoutException, TimeoutError)
_LARGEST_LIST_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class UpstreamAddress:
    """Where the upstream is, and how long it is waited for."""

    url: str
    connect_timeout_s: float = 5
    timeout_s: float = 600
    """Silence between two parts of an answer, and before the first."""
    list_timeout_s: float = 3
    """For a list of models, as a whole."""
    keeps_keys: bool = False
    """Whether callers send keys of ours, which are not for the upstream."""


@dataclass
class _Answer:
    """An answer on its way down."""

    send: Send
    path: str
    media_type: bytes = b""
    has_started: bool = False
    ending: bytes = b"\n\n"
    """The last bytes that were sent."""

    async def start(self, response: httpx.Response) -> None:
        headers = _without(response.headers.raw, _NOT_SENT_DOWN)
        headers = [one for one in headers if not one[0].startswith(b"access-control-")]
        self.media_type = dict(headers).get(b"content-type", b"").partition(b";")[0].strip()
        self.has_started = True
        status = response.status_code
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def add(self, part: bytes) -> None:
        self.ending = (self.ending + part)[-2:]
        await self.send({"type": "http.response.body", "body": part, "more_body": True})

    async def end(self, part: bytes = b"") -> None:
        await self.send({"type": "http.response.body", "body": part, "more_body": False})

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
class _Body:
    """A request's body on its way up."""

    receive: Receive
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    has_left: asyncio.Event = field(default_factory=asyncio.Event)

    async def parts(self) -> AsyncIterator[bytes]:
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


class Forwarder:
    """The connections to one upstream; to be closed in the event loop that it is used in."""

    def __init__(self, address: UpstreamAddress) -> None:
        self._address = address
        self._url = httpx.URL(address.url)
        self._via = f"1.1 embedserve-{secrets.token_hex(8)}".encode()
        # A transport knows neither redirects nor cookies nor the environment's proxies.
        self._transport = httpx.AsyncHTTPTransport(
            verify=self._url.scheme == "https",
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
        )
        self._is_down = False

    async def close(self) -> None:
        """Close the connections that are idle."""
        await self._transport.aclose()

    def has_passed(self, scope: Scope) -> bool:
        """Tell whether a request comes from this very server: it is its own upstream."""
        return any(name == b"via" and self._via in value for name, value in scope["headers"])

    async def forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with what the upstream answers; 502 or 504 in its place where it does not."""
        body, answer = _Body(receive), _Answer(send, scope["path"])
        exchange = asyncio.ensure_future(self._exchange(scope, body, answer))
        leaving = asyncio.ensure_future(body.wait_until_left())
        try:
            await asyncio.wait({exchange, leaving}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # Only a stop whose time is up cancels; the event loop ends right after it.
            exchange.cancel()
            leaving.cancel()
            await _end(answer, 503, "The server is stopping; send the request again later.")
            return
        exchange.cancel()
        leaving.cancel()
        # To the end: only then is the upstream's connection closed.
        ended, _ = await asyncio.gather(exchange, leaving, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended

    async def fetch(self, scope: Scope) -> bytes:
        """GET the same path for ourselves; raises httpx.HTTPError, TimeoutError, ValueError."""
        request = self._request({**scope, "method": "GET", "headers": self._own(scope)}, None)
        try:
            async with asyncio.timeout(self._address.list_timeout_s):
                response = await self._transport.handle_async_request(request)
                try:
                    found = await _read_all(response)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, TimeoutError) as error:
            self._tell(error)
            raise
        self._tell(None)
        return found

    async def _exchange(self, scope: Scope, body: _Body, answer: _Answer) -> None:
        has_body = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in scope["headers"]
        )
        if not has_body:
            body.is_over.set()
        request = self._request(scope, body.parts() if has_body else None)
        try:
            response = await self._transport.handle_async_request(request)
            try:
                self._tell(None)
                await answer.start(response)
                async for part in response.aiter_raw():
                    await answer.add(part)
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            self._tell(error)
            await _end(answer, 504 if isinstance(error, _SILENT) else 502, self._words(error))
            return
        await answer.end()

    def _tell(self, error: Exception | None) -> None:
        """Log that the upstream went away or came back, once each."""
        if error is None and self._is_down:
            self._is_down = False
            logger.info("the upstream at %s answers again", self._address.url)
        elif isinstance(error, _AWAY) and not self._is_down:
            self._is_down = True
            logger.warning("%s Models that are installed here go on.", self._words(error))

    def _words(self, error: Exception) -> str:
        where = f"The upstream at `{self._address.url}`"
        reason = str(error) or type(error).__name__
        if isinstance(error, _SILENT):
            return (
                f"{where} was silent for {self._address.timeout_s:g} s "
                "(EMBEDSERVE_UPSTREAM_TIMEOUT_S). Send the request again, or allow it more time."
            )
        if isinstance(error, TimeoutError):
            return (
                f"{where} gave no list of its models in {self._address.list_timeout_s:g} s "
                "(EMBEDSERVE_UPSTREAM_LIST_TIMEOUT_S)."
            )
        if isinstance(error, _AWAY):
            return (
                f"{where} cannot be reached ({reason}). Start it, or correct EMBEDSERVE_UPSTREAM."
            )
        return f"{where} broke off ({reason}). Send the request again; its log may say why."

    def _request(self, scope: Scope, content: AsyncIterator[bytes] | None) -> httpx.Request:
        target: bytes = self._url.raw_path.rstrip(b"/") + (scope.get("raw_path") or b"")
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        dropped = _NOT_SENT_UP | _KEY_HEADERS if self._address.keeps_keys else _NOT_SENT_UP
        timeout = httpx.Timeout(self._address.timeout_s, connect=self._address.connect_timeout_s)
        return httpx.Request(
            scope["method"],
            self._url.copy_with(raw_path=target),
            headers=[*_without(scope["headers"], dropped), (b"via", self._via)],
            content=content,
            extensions={"timeout": timeout.as_dict()},
        )

    def _own(self, scope: Scope) -> list[Header]:
        return [one for one in scope["headers"] if one[0] == b"authorization"]


def _without(headers: Iterable[Header], dropped: frozenset[bytes]) -> list[Header]:
    """Return the headers but `dropped` and what `Connection` names; names in lower case."""
    found = [(name.lower(), value) for name, value in headers]
    named = {
        word.strip().lower()
        for name, value in found
        if name == b"connection"
        for word in value.split(b",")
    }
    return [one for one in found if one[0] not in dropped and one[0] not in named]


async def _read_all(response: httpx.Response) -> bytes:
    """Return the body of a 200; raise ValueError for another status or too much."""
    if response.status_code != 200:
        raise ValueError(f"status {response.status_code}")
    found = bytearray()
    async for part in response.aiter_raw():
        found += part
        if len(found) > _LARGEST_LIST_BYTES:
            raise ValueError("too long")
    return bytes(found)


async def _end(answer: _Answer, status: int, message: str) -> None:
    """Answer with an error, or end with one what has begun."""
    if answer.has_started:
        logger.warning("an answer to %s was cut: %s", answer.path, message)
        await answer.fail(message)
    else:
        reply = error_response(answer.path, status, message)
        await reply({"type": "http"}, _nothing, answer.send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
