"""Fetch addresses of the web into files: bounded, politely, and never from inside a network.

Every address that a name stands for is looked at before one of them is connected to, and the
connection is made to that very number: a name cannot mean something else a moment later.
"""

import asyncio
import ipaddress
import os
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from threading import Lock
from urllib.parse import urljoin, urlsplit

import httpx

from embedserve.errors import ExtractionError

MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
GONE = (404, 410)
BUSY = (408, 425, 429)
SILENCE_S = 20.0
"""What a server may wait between two pieces."""
USER_AGENT = "embedserve (an index of this address; one request at a time for each host)"

ENDINGS = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/markdown": ".md",
    "text/plain": ".txt",
    "text/csv": ".csv",
    "text/xml": ".xml",
    "application/xml": ".xml",
    "application/rss+xml": ".xml",
    "application/atom+xml": ".xml",
    "application/json": ".json",
    "application/pdf": ".pdf",
    "application/epub+zip": ".epub",
    "application/rtf": ".rtf",
    "application/msword": ".doc",
}


@dataclass(frozen=True)
class FetchLimits:
    """What one address may cost."""

    max_bytes: int
    timeout_s: float
    """For all of it, redirects included."""
    delay_s: float
    """Between two requests to one host."""
    allows_private: bool = False
    """Whether addresses of this machine and its networks may be fetched."""


@dataclass(frozen=True)
class Fetched:
    """What came; `place` is None for what is the same as before."""

    place: Path | None
    size_bytes: int = 0
    etag: str | None = None
    last_modified: str | None = None


class GoneError(Exception):
    """The server says that nothing is there (any more)."""


@dataclass
class _Turn:
    lock: Lock = field(default_factory=Lock)
    free_at: float = 0.0


class Fetcher:
    """Fetch into `folder`; safe to share by threads, one request at a time for each host."""

    def __init__(self, folder: Path, limits: FetchLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._lock = Lock()
        self._turns: dict[str, _Turn] = {}

    def sweep(self) -> None:
        """Delete what a process that was killed has left; for the start alone."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def fetch(
        self,
        url: str,
        *,
        etag: str | None = None,
        last_modified: str | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> Iterator[Fetched]:
        """Lend what is at an address, as a file that goes afterwards.

        Raises ExtractionError with a stage of `fetch`, and GoneError for 404 and 410. `pause`
        waits for the host's turn and may raise.
        """
        known = {"If-None-Match": etag, "If-Modified-Since": last_modified}
        headers = {name: value for name, value in known.items() if value}
        ends_at = time.monotonic() + self._limits.timeout_s
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=self._folder) as scratch:
            yield self._follow(url, headers, Path(scratch), ends_at, pause)

    def _follow(
        self,
        url: str,
        headers: dict[str, str],
        scratch: Path,
        ends_at: float,
        pause: Callable[[float], None],
    ) -> Fetched:
        at = url
        for _ in range(MAX_REDIRECTS + 1):
            host = _host(at, url)
            with self._turn(host, pause):
                found = self._once(at, headers, scratch, ends_at, url)
            if isinstance(found, Fetched):
                return found
            at = urljoin(at, found)
        raise _failure("fetch_failed", url, f"it redirects more than {MAX_REDIRECTS} times")

    def _once(
        self, at: str, headers: dict[str, str], scratch: Path, ends_at: float, url: str
    ) -> Fetched | str:
        """Return what came, or the address that it redirects to."""
        request = _request(at, headers, self._address(at, url))
        # In a loop of its own, because a time for all of it, header lines that come byte by byte
        # included, is something that only an event loop keeps.
        asked = self._ask(request, at, scratch, url)
        try:
            return asyncio.run(asyncio.wait_for(asked, max(0.1, ends_at - time.monotonic())))
        except TimeoutError as error:
            words = f"it took longer than {self._limits.timeout_s:g} s"
            raise _failure("timed_out", url, words, is_retryable=True) from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            words = str(error) or type(error).__name__
            raise _failure("fetch_failed", url, words, is_retryable=True) from error

    async def _ask(self, request: httpx.Request, at: str, scratch: Path, url: str) -> Fetched | str:
        # No proxy of the environment: it would resolve names by itself.
        async with httpx.AsyncClient(
            timeout=SILENCE_S, trust_env=False, verify=self._certificates
        ) as client:
            request.extensions["timeout"] = client.timeout.as_dict()
            reply = await client.send(request, stream=True)
            try:
                if reply.status_code in REDIRECTS and "location" in reply.headers:
                    return str(reply.headers["location"])
                _check(reply, url)
                if reply.status_code == 304:
                    return Fetched(None)
                return await self._saved(reply, at, scratch, url)
            finally:
                await reply.aclose()

    @cached_property
    def _certificates(self) -> ssl.SSLContext:
        return httpx.create_ssl_context(trust_env=False)

    async def _saved(self, reply: httpx.Response, at: str, scratch: Path, url: str) -> Fetched:
        limits = self._limits
        place, size = scratch / f"page{_ending(reply, at)}", 0
        with place.open("wb") as file:
            async for part in reply.aiter_raw():
                size += len(part)
                if size > limits.max_bytes:
                    raise _failure("too_large", url, f"it is larger than {limits.max_bytes} bytes")
                file.write(part)
        etag, modified = reply.headers.get("etag"), reply.headers.get("last-modified")
        return Fetched(place, size, etag, modified)

    def _address(self, at: str, url: str) -> str:
        """Return the number to connect to; raise ExtractionError where one is not allowed."""
        parts = urlsplit(at)
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        except (OSError, ValueError) as error:  # UnicodeError is a ValueError
            raise _failure("fetch_failed", url, f"{error}", is_retryable=True) from error
        # What is reached more often first: many machines have no way out by IPv6.
        found.sort(key=lambda entry: entry[0] != socket.AF_INET)
        numbers = [str(entry[4][0]) for entry in found]
        if not self._limits.allows_private:
            for number in numbers:
                if not is_public(number):
                    raise _failure(
                        "not_allowed",
                        url,
                        f"`{parts.hostname}` is {number}, which is no public address",
                        hint="EMBEDSERVE_FETCH_PRIVATE=true allows it.",
                    )
        return numbers[0]

    @contextmanager
    def _turn(self, host: str, pause: Callable[[float], None]) -> Iterator[None]:
        with self._lock:
            turn = self._turns.setdefault(host, _Turn())
        with turn.lock:
            wait_s = turn.free_at - time.monotonic()
            if wait_s > 0:
                pause(wait_s)
            try:
                yield
            finally:
                turn.free_at = time.monotonic() + self._limits.delay_s


def is_public(number: str) -> bool:
    """Tell whether an IP address is one of the internet at large.

    IPv6 addresses that carry an IPv4 one (mapped, 6to4, NAT64) are judged by that one too.
    """
    address = ipaddress.ip_address(number.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None and not is_public(str(inner)):
            return False
        if address.ipv4_mapped:
            return True
    return address.is_global and not address.is_multicast


def _host(at: str, url: str) -> str:
    try:
        parts = urlsplit(at)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise _failure("fetch_failed", url, f"`{at[:200]}` is no address") from error
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise _failure(
            "not_allowed",
            url,
            f"`{at[:200]}` is not plain http or https",
            hint="Addresses begin with http:// or https:// and hold no user or password.",
        )
    return host


def _request(at: str, headers: dict[str, str], number: str) -> httpx.Request:
    """Make a request that connects to a number and speaks of the name."""
    url = httpx.URL(at)
    every = {
        **headers,
        "Host": url.netloc.decode("ascii"),
        "User-Agent": USER_AGENT,
        "Accept-Encoding": "identity",
    }
    extensions = {"sni_hostname": url.raw_host.decode("ascii")}
    return httpx.Request("GET", url.copy_with(host=number), headers=every, extensions=extensions)


def _check(reply: httpx.Response, url: str) -> None:
    status = reply.status_code
    if status in GONE:
        raise GoneError
    if status not in (200, 304):
        words = f"the server answers {status}"
        raise _failure("fetch_failed", url, words, is_retryable=status in BUSY or status >= 500)
    if reply.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise _failure("fetch_failed", url, "it comes packed though that was not asked for")


def _ending(reply: httpx.Response, at: str) -> str:
    """Return how the file's name is to end, by its type or else by its address."""
    kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
    ending = os.path.splitext(PurePosixPath(urlsplit(at).path).name)[1].lower()
    is_plain = kind in ("", "text/plain", "application/octet-stream") or kind not in ENDINGS
    if is_plain and ending[1:].isalnum() and len(ending) <= 10 and ending.isascii():
        return ending
    return ENDINGS.get(kind, "")


def _failure(
    code: str, url: str, words: str, *, hint: str = "", is_retryable: bool = False
) -> ExtractionError:
    return ExtractionError(
        code,
        f"Cannot fetch `{url[:300]}`: {words}.",
        stage="fetch",
        hint=hint,
        is_retryable=is_retryable,
    )
