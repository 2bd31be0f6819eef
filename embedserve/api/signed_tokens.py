"""Tokens that another server signs for its users: JWT with HS256 and a secret that both know."""

from collections.abc import Mapping, Sequence
from typing import Any

from embedserve.errors import AccessError

SHORTEST_SECRET = 32
"""Characters, as RFC 7518 wants for HS256; shorter ones can be guessed."""


def read_token(
    token: str, secret: str, *, needs: Sequence[str] = (), leeway_s: float = 0, hint: str = ""
) -> Mapping[str, Any]:
    """Return the claims of a token that is signed, not over, and has `exp` and what else it needs.

    Raises AccessError that ends with `hint`; `leeway_s`: how far the clocks may differ.
    """
    import jwt  # brings 6 MiB of cryptography; most servers are given no secret

    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            secret,
            algorithms=["HS256"],
            leeway=leeway_s,
            options={"require": ["exp", *needs]},
        )
    except jwt.InvalidTokenError as error:
        raise AccessError(f"The token is not accepted: {error}. {hint}".strip()) from error
    return claims
