"""Hands a request to the upstream and its answer back, both as they come. Decides nothing.

Nothing is held: what the client sends goes up and what the upstream answers comes down part by
part; who leaves ends the other side. Redirects are answers like others.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
from starlette.types import Message, Receive, Scope, Send

from embedserve.api.errors import error_response
from embedserve.api.exchange import HOP_BY_HOP, Answer, Body, Header, without
from embedserve.errors import InvalidRequestError

logger = logging.getLogger(__name__)

# `Origin`: the page was let in here, and the upstream has a list of its own.
_NOT_SENT_UP = HOP_BY_HOP | {b"host", b"expect", b"origin"}
_KEY_HEADERS = frozenset((b"authorization", b"x-api-key", b"api-key"))
_SILENT = (httpx.ReadTimeout, httpx.WriteTimeout)
_AWAY = (httpx.ConnectError, httpx.TimeoutException, TimeoutError)
_LARGEST_LIST_BYTES = 16 * 1024 * 1024
_DOWN_WAIT_S = 0.25
"""For a list from an upstream that was away a moment ago: one that is back answers sooner."""


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
        self._probe: asyncio.Task[bytes] | None = None

    async def close(self) -> None:
        """Close the connections that are idle."""
        if self._probe:
            self._probe.cancel()
        await self._transport.aclose()

    def has_passed(self, scope: Scope) -> bool:
        """Tell whether a request comes from this very server: it is its own upstream."""
        return any(name == b"via" and self._via in value for name, value in scope["headers"])

    async def forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with what the upstream answers; 502 or 504 in its place where it does not."""
        body, answer = Body(receive), Answer(send, scope["path"])
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
        """GET the same path for ourselves; of an upstream that is away nearly at once.

        Raises httpx.HTTPError, TimeoutError, ValueError, and InvalidRequestError for a path that
        cannot be handed on.
        """
        if not self._is_down:
            return await self._fetch(scope)
        if self._probe is None:
            # It goes on beside the requests that do not wait for it.
            self._probe = asyncio.ensure_future(self._fetch(scope))
            self._probe.add_done_callback(self._end_probe)
            probe = self._probe
            await asyncio.wait({probe}, timeout=_DOWN_WAIT_S)
            if probe.done():
                return await probe
        raise TimeoutError

    def _end_probe(self, probe: "asyncio.Task[bytes]") -> None:
        self._probe = None
        if not probe.cancelled():
            probe.exception()  # what nobody asks for would be logged

    async def _fetch(self, scope: Scope) -> bytes:
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

    async def _exchange(self, scope: Scope, body: Body, answer: Answer) -> None:
        has_body = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in scope["headers"]
        )
        if not has_body:
            body.is_over.set()
        try:
            request = self._request(scope, body.parts() if has_body else None)
        except InvalidRequestError as error:
            await _end(answer, 400, error.message)
            return
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
            if not isinstance(error, _AWAY):  # of those `_tell` does, once
                logger.warning("%s", self._detail(error))
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
            logger.warning("%s Models that are installed here go on.", self._detail(error))

    def _detail(self, error: Exception) -> str:
        """Return what the log says: callers are told neither the address nor the reason."""
        reason = str(error) or type(error).__name__
        return f"{self._address.url}: {reason}. {self._words(error)}"

    def _words(self, error: Exception) -> str:
        where = "The upstream"
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
                f"{where} (EMBEDSERVE_UPSTREAM) cannot be reached. Start it, or correct the "
                "setting; the server's log says more."
            )
        return f"{where} broke off. Send the request again; the server's log says more."

    def _request(self, scope: Scope, content: AsyncIterator[bytes] | None) -> httpx.Request:
        target: bytes = self._url.raw_path.rstrip(b"/") + (scope.get("raw_path") or b"")
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        dropped = _NOT_SENT_UP | _KEY_HEADERS if self._address.keeps_keys else _NOT_SENT_UP
        try:
            url = self._url.copy_with(raw_path=target)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise InvalidRequestError(
                f"The upstream cannot be asked for this path or query: {error}. "
                "Percent-encode what is not ASCII, or shorten it."
            ) from error
        timeout = httpx.Timeout(self._address.timeout_s, connect=self._address.connect_timeout_s)
        return httpx.Request(
            scope["method"],
            url,
            headers=[*without(scope["headers"], dropped), (b"via", self._via)],
            content=content,
            extensions={"timeout": timeout.as_dict()},
        )

    def _own(self, scope: Scope) -> list[Header]:
        return [one for one in scope["headers"] if one[0] == b"authorization"]


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


async def _end(answer: Answer, status: int, message: str) -> None:
    """Answer with an error, or end with one what has begun."""
    if answer.has_started:
        logger.warning("an answer to %s was cut: %s", answer.path, message)
        await answer.fail(message)
    else:
        reply = error_response(answer.path, status, message)
        await reply({"type": "http"}, _nothing, answer.send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
