"""Keeps web pages out, and lets those in that may call (CORS).

A page of any site can make its visitor's browser send requests to 127.0.0.1. Browsers say where
such a request comes from (`Origin`), and which name it was meant for (`Host`, which betrays DNS
names that were pointed at loopback). Programs other than browsers send no `Origin` and are not
concerned. This is no authentication. Rules and default origins are Ollama's.
"""

import re
import socket
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedserve.api.errors import error_response

_LOCAL = ("localhost", "127.0.0.1", "0.0.0.0")
# Besides pages of this machine: desktop programs and editor extensions, which are no web pages.
ALWAYS_ALLOWED = (
    *(f"{scheme}://{name}{port}" for name in _LOCAL for scheme in ("http", "https")
      for port in ("", ":*")),
    *(f"{scheme}://*" for scheme in ("app", "file", "tauri", "vscode-webview", "vscode-file")),
)  # fmt: skip
LOCAL_SUFFIXES = (".localhost", ".local", ".internal")
LONGEST_ORIGIN = 512
"""Characters; a pattern with several `*` would take long over more."""

_STAINLESS = (
    "arch", "async", "custom-poll-interval", "helper-method", "lang", "os", "package-version",
    "poll-helper", "retry-count", "runtime", "runtime-version", "timeout",
)  # fmt: skip
ALLOWED_HEADERS = (
    "Authorization", "Content-Type", "User-Agent", "Accept", "X-Requested-With", "OpenAI-Beta",
    *(f"x-stainless-{name}" for name in _STAINLESS),
    "X-Api-Key", "Api-Key", "X-Request-Timeout-Ms",
)  # fmt: skip
EXPOSED_HEADERS = ("X-Truncated-Inputs", "X-Truncated-Count", "Retry-After", "X-Upstream-Error")
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS",
    "Access-Control-Allow-Headers": ",".join(ALLOWED_HEADERS),
    "Access-Control-Max-Age": str(12 * 3600),
}


class BrowserGuard:
    """ASGI middleware: 403 to foreign pages, CORS headers and preflights to those that may call."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str], is_loopback: bool) -> None:
        """`origins` are allowed besides `ALWAYS_ALLOWED`, with `*` for any part; `*` is all."""
        self._app = app
        self._allows_all = "*" in origins
        patterns = (*ALWAYS_ALLOWED, *origins)
        self._origins = re.compile("|".join(map(_expression, patterns)), re.IGNORECASE)
        # Whoever may call from any page gains nothing by another name of this machine.
        self._checks_host = is_loopback and not self._allows_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, answer it, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin", "")
        allowed = self._allowed(origin, host) if origin else None
        if refusal := self._refusal(host, origin, allowed):
            await error_response(scope["path"], 403, refusal)(scope, receive, send)
            return
        if allowed:
            send = partial(_send_allowed, send, allowed)
        if scope["method"] == "OPTIONS":
            await Response(None, 204, PREFLIGHT if allowed else None)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _allowed(self, origin: str, host: str) -> str | None:
        """Return what `Access-Control-Allow-Origin` says; empty: nothing, the page is ours."""
        if origin in (f"http://{host}", f"https://{host}"):
            return ""
        if self._allows_all:
            return "*"
        is_known = len(origin) <= LONGEST_ORIGIN and self._origins.fullmatch(origin)
        return origin if is_known else None

    def _refusal(self, host: str, origin: str, allowed: str | None) -> str | None:
        if self._checks_host and not _is_local(host):
            return (
                f"Host `{host[:100]}` is not this machine. Call it as 127.0.0.1 or localhost, or "
                "set EMBEDSERVE_ALLOWED_ORIGINS=* behind a proxy that checks names."
            )
        if origin and allowed is None:
            return (
                f"Pages of `{origin[:100]}` may not use this server. "
                "Allow them with EMBEDSERVE_ALLOWED_ORIGINS."
            )
        return None


async def _send_allowed(send: Send, origin: str, message: Message) -> None:
    """Send, with the headers that let a page of `origin` read the answer."""
    if message["type"] == "http.response.start":
        headers = MutableHeaders(scope=message)
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Expose-Headers"] = ",".join(EXPOSED_HEADERS)
        if origin != "*":
            headers.add_vary_header("Origin")
    await send(message)


def _expression(pattern: str) -> str:
    # An origin has no path; so no `*` reaches beyond the host and its port.
    bare = pattern if pattern.endswith("://") else pattern.rstrip("/")
    return "[^/]*".join(map(re.escape, bare.split("*")))


def _is_local(host: str) -> bool:
    """Tell whether `host` (name or address, with or without a port) can only mean this machine.

    A foreign site's owner may point any name of a domain at loopback, but no address.
    """
    name = _without_port(host)
    return _is_local_name(name) or _is_own_address(name)


def _without_port(host: str) -> str:
    name = re.sub(r":\d*$", "", host) if host.count(":") == 1 or "]" in host else host
    return name.strip("[]").rstrip(".").lower()


def _is_local_name(name: str) -> bool:
    try:
        return not ip_address(name).is_global
    except ValueError:
        own = ("", "localhost", socket.gethostname().lower())
        return name in own or name.endswith(LOCAL_SUFFIXES)


def _is_own_address(name: str) -> bool:
    """Tell whether this is an address of this machine: no socket can be bound to another."""
    try:
        version = ip_address(name).version
        with socket.socket(_FAMILIES[version], socket.SOCK_DGRAM) as probe:
            probe.bind((name, 0))
    except (ValueError, OSError):
        return False
    return True
