"""Keeps web pages out: a browser on this machine must not be their way to the server.

A page of any site can make its visitor's browser send requests to 127.0.0.1. Browsers say where
such a request comes from (`Origin`), and which name it was meant for (`Host`, which betrays DNS
names that were pointed at loopback). Programs other than browsers send no `Origin` and are not
concerned. This is no authentication.
"""

from collections.abc import Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from embedserve.api.errors import error_response

# Desktop programs and editor extensions, which are no web pages; the list is Ollama's.
TRUSTED_SCHEMES = ("app", "file", "tauri", "vscode-webview", "vscode-file")
LOCAL_SUFFIXES = (".localhost", ".local", ".internal")


class BrowserGuard:
    """ASGI middleware that answers 403 to requests of foreign pages."""

    def __init__(self, app: ASGIApp, *, origins: Sequence[str], is_loopback: bool) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._is_loopback = is_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and "*" not in self._origins:
            refusal = self._refusal(Headers(scope=scope))
            if refusal:
                await error_response(scope["path"], 403, refusal)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> str | None:
        host = headers.get("host", "")
        if self._is_loopback and not _is_local(_name(f"//{host}")):
            return (
                f"Host `{host[:100]}` is not this machine. Call it as 127.0.0.1 or localhost, or "
                "set EMBEDSERVE_ALLOWED_ORIGINS=* behind a proxy that checks names."
            )
        origin = headers.get("origin", "")
        if not origin or origin in self._origins:
            return None
        parts = urlsplit(origin)
        is_same = parts.netloc == host
        if is_same or parts.scheme in TRUSTED_SCHEMES or _is_local(_name(origin)):
            return None
        return (
            f"Pages of `{origin[:100]}` may not use this server. "
            "Allow them with EMBEDSERVE_ALLOWED_ORIGINS."
        )


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_local(name: str) -> bool:
    """Tell whether a name cannot be one that a foreign site's owner points at loopback."""
    if name in ("", "localhost") or name.endswith(LOCAL_SUFFIXES):
        return bool(name)
    try:
        return ip_address(name) is not None
    except ValueError:
        return False
