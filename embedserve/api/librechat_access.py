"""Who a call of LibreChat is made for: a token that it signs with the secret that both know."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from embedserve.api.librechat_schemas import MAX_FILES
from embedserve.api.replies import Services
from embedserve.api.signed_tokens import read_token
from embedserve.errors import AccessError, IndexNotFoundError
from embedserve.services.definitions import IndexDefinition
from embedserve.services.filters import parse_filter
from embedserve.types import Filter, ListedDocument

SHORTEST_SECRET = 16
"""Characters; LibreChat's own examples have 64."""


@dataclass(frozen=True)
class LibreChatAccess:
    """What is known of a LibreChat."""

    secret: str
    index: str
    """Where its files go."""

    def user(self, authorization: str) -> str:
        """Return the id of the user that the header `Authorization` tells of.

        Raises AccessError for a token that is missing, forged, or older than its five minutes.
        """
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise AccessError("The call carries no token. LibreChat sends one by itself.")
        hint = (
            "EMBEDSERVE_LIBRECHAT_SECRET must be the JWT_SECRET of LibreChat, and both clocks must "
            "be right."
        )
        claims = read_token(token.strip(), self.secret, needs=["id"], hint=hint)
        user = claims["id"]
        if not isinstance(user, str) or not user:
            raise AccessError("The token names no user.")
        return user


@dataclass(frozen=True)
class Caller:
    """Who asks, and what for."""

    services: Services
    index: str
    user: str

    def may_read(self, file_ids: Sequence[str], entity: str | None = None) -> Filter:
        """Return which documents are meant: those of the files that are the caller's.

        A file belongs to its user, or to an agent (`entity`), for which somebody sent it.
        """
        owners = [self.user, entity] if entity else [self.user]
        return parse_filter(
            {
                "metadata": {"file_id": {"in": list(file_ids)}},
                "or": [{"metadata": {"user_id": {"in": owners}}}, self._sent()],
            }
        )

    def every(self) -> Filter:
        """Return which documents are the caller's."""
        return parse_filter({"or": [{"metadata": {"user_id": self.user}}, self._sent()]})

    def _sent(self) -> dict[str, Any]:
        return {"metadata": {"uploader": self.user}}

    def documents(self, wanted: Filter) -> list[ListedDocument]:
        """List documents; none before the first file made the index."""
        try:
            return self.services.documents.page(self.index, wanted, limit=MAX_FILES, offset=0)
        except IndexNotFoundError:
            return []

    def make_index(self) -> None:
        """Make the index where it is not there yet."""
        try:
            self.services.indexes.see(self.index)
        except IndexNotFoundError:
            self.services.indexes.put(self.index, IndexDefinition())
