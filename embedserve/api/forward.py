"""Hands a request to the upstream and its answer back, both as they come. Decides nothing.

Nothing is held: what the client sends goes up and what the upstream answers comes down part by
part; who leaves ends the other side.
"""

import httpx
from starlette.types import Receive, Scope, Send

from embedserve.api.errors import status_of
from embedserve.api.exchange import HOP_BY_HOP, Answer, Body, Header, unless_left, without
from embedserve.errors import EmbedserveError
from embedserve.services.upstream_link import UpstreamLink

# `Origin`: the page was let in here, and the upstream has a list of its own.
_NOT_SENT_UP = HOP_BY_HOP | {b"host", b"expect", b"origin"}
_KEY_HEADERS = frozenset((b"authorization", b"x-api-key", b"api-key"))


class Forwarder:
    """Asks one upstream what others ask here."""

    def __init__(self, link: UpstreamLink) -> None:
        self._link = link

    async def close(self) -> None:
        """Close the connections that are idle."""
        await self._link.close()

    def has_passed(self, scope: Scope) -> bool:
        """Tell whether a request comes from this very server: it is its own upstream."""
        return self._link.has_passed(scope["headers"])

    async def forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with what the upstream answers; 502 or 504 in its place where it does not."""
        body, answer = Body(receive), Answer(send, scope["path"])
        exchange = self._exchange(scope, body, answer)
        await unless_left(exchange, body.wait_until_left(), answer)

    async def fetch(self, scope: Scope) -> bytes:
        """GET the same path for ourselves; of an upstream that is away nearly at once.

        Raises UpstreamError, ValueError, and InvalidRequestError for a path that cannot be handed
        on.
        """
        own = [one for one in scope["headers"] if one[0] == b"authorization"]
        return await self._link.fetch(self._request("GET", scope, own))

    async def _exchange(self, scope: Scope, body: Body, answer: Answer) -> None:
        has_body = any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in scope["headers"]
        )
        if not has_body:
            body.is_over.set()
        content = body if has_body else None
        try:
            request = self._request(scope["method"], scope, scope["headers"], content)
            async with self._link.exchange(request) as response:
                await answer.start(response)
                async for part in response.aiter_raw():
                    await answer.add(part)
        except EmbedserveError as error:
            await answer.end_with(status_of(error), error.message)
            return
        await answer.end()

    def _request(
        self, method: str, scope: Scope, headers: list[Header], body: Body | None = None
    ) -> httpx.Request:
        target: bytes = scope.get("raw_path") or b""
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        dropped = _NOT_SENT_UP | _KEY_HEADERS if self._link.address.keeps_keys else _NOT_SENT_UP
        content = body.parts() if body else None
        return self._link.request(method, target, without(headers, dropped), content)
