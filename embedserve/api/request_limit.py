"""Refuses requests beyond a number that are worked on or wait at once."""

from starlette.types import ASGIApp, Receive, Scope, Send

from embedserve.api.errors import respond
from embedserve.errors import BUSY, OverloadedError
from embedserve.services.metrics import Metrics


class RequestLimit:
    """ASGI middleware: `limit` requests at once. What only looks (GET, HEAD) does not count."""

    def __init__(self, app: ASGIApp, limit: int, metrics: Metrics) -> None:
        self._app = app
        self._limit = limit
        self._metrics = metrics
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        if self._running >= self._limit:
            error = OverloadedError(BUSY)
            self._metrics.count_refusal(error)
            await respond(scope["path"], error)(scope, receive, send)
            return
        self._running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._running -= 1
