"""Says for whom a request is made, before anything is read for it (services/viewing.py).

A front end signs who its user is; a token that does not hold is refused, one that is missing makes
the caller nobody. An API key with the scope `admin` sees all, unless a token says for whom it asks.
"""

import hmac
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

from embedserve.api.errors import respond
from embedserve.api.keys import granted_to, may_ingest
from embedserve.api.librechat_access import LibreChatAccess
from embedserve.api.scopes import ADMIN
from embedserve.api.signed_tokens import read_token
from embedserve.errors import AccessError
from embedserve.services.viewing import OWNER, Viewer, acting_as

OWNER_HEADER = b"x-embedserve-owner"
"""Of the commands: what only whoever can read the home's files knows."""
_LIBRECHAT = "/librechat/"


@dataclass(frozen=True)
class UserTokens:
    """How a front end signs who its user is."""

    secret: str
    header: str
    """Its name; the token is its value, with or without `Bearer`."""
    leeway_s: float = 0

    def claims(self, token: str) -> dict[str, object]:
        """Return the claims of a token; raise AccessError for one that does not hold."""
        kind, _, rest = token.strip().partition(" ")
        bare = rest.strip() if kind.lower() == "bearer" else token.strip()
        hint = (
            f"It came as `{self.header}`; EMBEDSERVE_USER_TOKEN_SECRET must be the secret that the "
            "front end signs with, and both clocks must be right."
        )
        return dict(read_token(bare, self.secret, leeway_s=self.leeway_s, hint=hint))


@dataclass(frozen=True)
class ViewerSources:
    """By what a caller may show who asks."""

    tokens: UserTokens | None = None
    librechat: LibreChatAccess | None = None
    owner_key: str = ""
    """What the commands send; empty: they are like others."""


class ViewerGuard:
    """ASGI middleware: 401 for a user token that does not hold, else the request is its user's."""

    def __init__(self, app: ASGIApp, sources: ViewerSources) -> None:
        self._app = app
        self._sources = sources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on as its user's, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            viewer = self._viewer(scope)
        except AccessError as error:
            reply = respond(scope["path"], error)
            reply.headers["WWW-Authenticate"] = 'Bearer realm="embedserve", error="invalid_token"'
            await reply(scope, receive, send)
            return
        with acting_as(viewer):
            await self._app(self._without_proof(scope), receive, send)

    def _without_proof(self, scope: Scope) -> Scope:
        """Return the request without what proved who asks: an upstream could show it to us."""
        tokens = self._sources.tokens
        proofs = {OWNER_HEADER, tokens.header.lower().encode() if tokens else OWNER_HEADER}
        if proofs.isdisjoint(name for name, _ in scope["headers"]):
            return scope
        return {**scope, "headers": [one for one in scope["headers"] if one[0] not in proofs]}

    def _viewer(self, scope: Scope) -> Viewer:
        if self._sources.librechat and scope["path"].startswith(_LIBRECHAT):
            return self._of_librechat(self._sources.librechat, scope)
        tokens = self._sources.tokens
        given = _values(scope, tokens.header.lower().encode()) if tokens else []
        if tokens and given:
            if len(given) > 1:
                raise AccessError(f"The header `{tokens.header}` came twice. Send it once.")
            return Viewer(claims=tokens.claims(given[0].decode("latin-1")))
        if self._is_owner(scope):
            return OWNER
        return Viewer(sees_all=ADMIN in granted_to(scope), may_change=may_ingest(scope))

    def _of_librechat(self, access: LibreChatAccess, scope: Scope) -> Viewer:
        """Return LibreChat's user, whose files it sends and deletes; its routes refuse others."""
        given = _values(scope, b"authorization")
        try:
            user = access.user(given[-1].decode("latin-1") if given else "")
        except AccessError:
            return Viewer()
        return Viewer(claims={"id": user}, may_change=True)

    def _is_owner(self, scope: Scope) -> bool:
        key = self._sources.owner_key.encode()
        given = _values(scope, OWNER_HEADER)
        return bool(key and given) and hmac.compare_digest(given[0], key)


def _values(scope: Scope, header: bytes) -> list[bytes]:
    return [value for name, value in scope["headers"] if name == header]
