"""API keys: who may call, and what. Without any key everybody who reaches the port may do all.

Which scope a route needs stands in `scopes.py`. Keys are kept as digests only, and never logged.
"""

import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from starlette.types import ASGIApp, Receive, Scope, Send

from embedserve.api.errors import error_response
from embedserve.api.scopes import ADMIN, INGEST, OPEN, SCOPES, scope_of
from embedserve.errors import EmbedserveError, KeyMissingError, StartupError

SHORTEST_KEY = 16
"""Characters; shorter ones can be guessed."""
_HEADERS = (b"x-api-key", b"api-key")
_BEARER = b"bearer"
_KEY = re.compile(r"[!-+\--~]+")  # printable ASCII but blanks and commas
FORMAT = (
    "Write `scope:key`, with the scopes read, ingest and admin (several joined by `+`, such as "
    f"`read+ingest:key`) and a key of at least {SHORTEST_KEY} printable characters without commas."
)


@dataclass(frozen=True)
class ApiKey:
    """A key that is accepted; the key itself is not kept."""

    digest: bytes
    """SHA-256."""
    scopes: frozenset[str]


def parse_keys(entries: Iterable[str]) -> list[ApiKey]:
    """Read entries of the form `scope+scope:key`; empty ones and comments (`#`) are none.

    Raises StartupError that names an entry by its number, never by its key.
    """
    found = []
    for number, entry in enumerate(entries, start=1):
        text = entry.strip()
        if not text or text.startswith("#"):
            continue
        named, colon, key = text.partition(":")
        scopes = frozenset(named.lower().split("+"))
        is_long = len(key) >= SHORTEST_KEY and _KEY.fullmatch(key)
        if not colon or not is_long or not scopes <= set(SCOPES):
            raise StartupError(f"Entry {number} of the API keys cannot be used. {FORMAT}")
        found.append(ApiKey(sha256(key.encode()).digest(), scopes))
    return found


_GRANTED = "embedserve.granted"
"""Of an ASGI scope: what the key of a request may; absent where the server has no keys."""


def granted_to(scope: Scope) -> frozenset[str]:
    """Return the scopes of the key that a request carries; none without keys."""
    granted: frozenset[str] = scope.get(_GRANTED, frozenset())
    return granted


def may_ingest(scope: Scope) -> bool:
    """Tell whether a request carries a key with the scope `ingest`; never without keys.

    For callers that write only when somebody has said so: models, who call of their own accord.
    """
    return not granted_to(scope).isdisjoint((INGEST, ADMIN))


@dataclass(frozen=True)
class _Refusal:
    status: int
    message: str
    challenge: str
    """What `WWW-Authenticate` says besides the realm (RFC 6750)."""
    error: EmbedserveError | None = None
    """For dialects that tell this one from others."""


class KeyGuard:
    """ASGI middleware: 401 without a known key, 403 with one that does not reach far enough."""

    def __init__(self, app: ASGIApp, keys: Sequence[ApiKey]) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http":
            wanted = scope_of(scope["method"], scope["path"])
            key = key_of(scope["headers"])
            scope[_GRANTED] = self._scopes(key) if key else frozenset()
            refusal = None if wanted == OPEN else self._refusal(scope, wanted, key)
            if refusal:
                reply = error_response(
                    *(scope["path"], refusal.status, refusal.message), error=refusal.error
                )
                reply.headers["WWW-Authenticate"] = f'Bearer realm="embedserve"{refusal.challenge}'
                await reply(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope, wanted: str, key: bytes | None) -> _Refusal | None:
        if key is None:
            way = "Send one as `Authorization: Bearer KEY` or `X-Api-Key: KEY`."
            missing = KeyMissingError(f"This server wants an API key. {way}")
            return _Refusal(401, missing.message, "", missing)
        scopes = granted_to(scope)
        if not scopes:
            message = "The API key that was sent is not one of this server's. Ask who runs it."
            return _Refusal(401, message, ', error="invalid_token"')
        if wanted in scopes or ADMIN in scopes:
            return None
        message = (
            f"The API key that was sent may not do this: it needs the scope `{wanted}` and has "
            f"`{'`, `'.join(sorted(scopes))}`. Use another key."
        )
        return _Refusal(403, message, f', error="insufficient_scope", scope="{wanted}"')

    def _scopes(self, key: bytes) -> frozenset[str]:
        """Return what a key may; every known key is compared, so the time tells nothing."""
        digest = sha256(key).digest()
        found: frozenset[str] = frozenset()
        for known in self._keys:
            if hmac.compare_digest(digest, known.digest):
                found |= known.scopes
        return found


def key_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the key that a request carries: as bearer token, else in a header of its own.

    A bearer token that is empty is none: clients without a key send it like that.
    """
    given: dict[bytes, bytes] = dict(headers)
    kind, _, token = given.get(b"authorization", b"").partition(b" ")
    if kind.lower() == _BEARER and token.strip():
        return token.strip()
    own = (given.get(name, b"").strip() for name in _HEADERS)
    return next((key for key in own if key), None)
