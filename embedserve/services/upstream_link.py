"""The connections to one upstream, a server that answers for us: how long it may take, who is away.

Who asks what of it is not known here. Redirects are answers like others.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from embedserve.errors import InvalidRequestError, UpstreamError, UpstreamSilentError

logger = logging.getLogger(__name__)

Header = tuple[bytes, bytes]

PASSTHROUGH = "EMBEDSERVE_UPSTREAM"
"""The setting of the one that gets what is not served here."""

_SILENT = (httpx.ReadTimeout, httpx.WriteTimeout)
_AWAY = (httpx.ConnectError, httpx.TimeoutException, TimeoutError)
_LARGEST_LIST_BYTES = 16 * 1024 * 1024
_DOWN_WAIT_S = 0.25
"""For a list from an upstream that was away a moment ago: one that is back answers sooner."""


@dataclass(frozen=True)
class UpstreamAddress:
    """Where an upstream is, and how long it is waited for."""

    url: str
    name: str = ""
    """What its users call it; empty where there is one alone."""
    setting: str = PASSTHROUGH
    """What names it."""
    key: str = field(default="", repr=False)
    """What it wants as a bearer token; empty: that of the caller, unless `keeps_keys`."""
    connect_timeout_s: float = 5
    timeout_s: float = 600
    """Silence between two parts of an answer, and before the first."""
    list_timeout_s: float = 3
    """For a list of models, as a whole."""
    keeps_keys: bool = False
    """Whether callers send keys that are not for the upstream."""


class UpstreamLink:
    """The connections to one upstream; to be closed in the event loop that it is used in."""

    def __init__(self, address: UpstreamAddress, via: bytes | None = None) -> None:
        """`via` names this server to itself; links that share it know each other's requests."""
        self.address = address
        self.url = httpx.URL(address.url)
        self._via = via or new_via()
        # A transport knows neither redirects nor cookies nor the environment's proxies.
        self._transport = httpx.AsyncHTTPTransport(
            verify=self.url.scheme == "https",
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

    def has_passed(self, headers: Iterable[Header]) -> bool:
        """Tell whether a request comes from this very server: it is its own upstream."""
        return any(name == b"via" and self._via in value for name, value in headers)

    def request(
        self,
        method: str,
        target: bytes,
        headers: Iterable[Header] = (),
        content: AsyncIterator[bytes] | bytes | None = None,
    ) -> httpx.Request:
        """Return a request; `target` is path and query, which come after the address's own path.

        Raises InvalidRequestError for a target that cannot be asked for.
        """
        try:
            url = self.url.copy_with(raw_path=self.url.raw_path.rstrip(b"/") + target)
        except (httpx.InvalidURL, UnicodeError) as error:
            raise InvalidRequestError(
                f"The upstream cannot be asked for this path or query: {error}. "
                "Percent-encode what is not ASCII, or shorten it."
            ) from error
        address = self.address
        timeout = httpx.Timeout(address.timeout_s, connect=address.connect_timeout_s)
        return httpx.Request(
            method,
            url,
            headers=[*headers, (b"via", self._via)],
            content=content,
            extensions={"timeout": timeout.as_dict()},
        )

    @asynccontextmanager
    async def exchange(self, request: httpx.Request) -> AsyncIterator[httpx.Response]:
        """Send a request; the answer is read, or let go, within the block.

        Raises UpstreamError and UpstreamSilentError, also for what happens while it is read.
        """
        try:
            response = await self._transport.handle_async_request(request)
            response.request = request
            try:
                self._tell(None)
                yield response
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            self._tell(error)
            if not isinstance(error, _AWAY):  # of those `_tell` does, once
                logger.warning("%s", self._detail(error))
            kind = UpstreamSilentError if isinstance(error, _SILENT) else UpstreamError
            raise kind(self._words(error)) from error

    async def fetch(self, request: httpx.Request) -> bytes:
        """Return the body of a 200, such as a list; of an upstream that is away nearly at once.

        Raises UpstreamError, and ValueError for another status or too much.
        """
        if not self._is_down:
            return await self._fetch(request)
        is_first = self._probe is None
        # It goes on beside the requests that do not wait for it.
        probe = self._probe or self._start_probe(request)
        await asyncio.wait({probe}, timeout=_DOWN_WAIT_S)
        if is_first and probe.done():
            return await probe
        if not self._is_down:
            return await self._fetch(request)
        raise UpstreamError(self._words(TimeoutError()))

    def _start_probe(self, request: httpx.Request) -> "asyncio.Task[bytes]":
        probe = self._probe = asyncio.ensure_future(self._fetch(request))
        probe.add_done_callback(self._end_probe)
        return probe

    def _end_probe(self, probe: "asyncio.Task[bytes]") -> None:
        self._probe = None
        if not probe.cancelled():
            probe.exception()  # what nobody asks for would be logged

    async def _fetch(self, request: httpx.Request) -> bytes:
        try:
            async with asyncio.timeout(self.address.list_timeout_s):
                response = await self._transport.handle_async_request(request)
                try:
                    found = await _read_all(response)
                finally:
                    await response.aclose()
        except (httpx.HTTPError, TimeoutError) as error:
            self._tell(error)
            raise UpstreamError(self._words(error)) from error
        self._tell(None)
        return found

    def _tell(self, error: Exception | None) -> None:
        """Log that the upstream went away or came back, once each."""
        if error is None and self._is_down:
            self._is_down = False
            logger.info("the upstream at %s answers again", self.address.url)
        elif isinstance(error, _AWAY) and not self._is_down:
            self._is_down = True
            logger.warning("%s Models that are installed here go on.", self._detail(error))

    def _detail(self, error: Exception) -> str:
        """Return what the log says: callers are told neither the address nor the reason."""
        reason = str(error) or type(error).__name__
        return f"{self.address.url}: {reason}. {self._words(error)}"

    def _words(self, error: Exception) -> str:
        address = self.address
        where = f"The upstream `{address.name}`" if address.name else "The upstream"
        if isinstance(error, _SILENT):
            return (
                f"{where} was silent for {address.timeout_s:g} s "
                "(EMBEDSERVE_UPSTREAM_TIMEOUT_S). Send the request again, or allow it more time."
            )
        if isinstance(error, TimeoutError):
            return (
                f"{where} gave no list of its models in {address.list_timeout_s:g} s "
                "(EMBEDSERVE_UPSTREAM_LIST_TIMEOUT_S)."
            )
        if isinstance(error, _AWAY):
            return (
                f"{where} ({address.setting}) cannot be reached. Start it, or correct the "
                "setting; the server's log says more."
            )
        return f"{where} broke off. Send the request again; the server's log says more."


def new_via() -> bytes:
    """Return what one server calls itself in the requests that it hands on."""
    return f"1.1 embedserve-{secrets.token_hex(8)}".encode()


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
