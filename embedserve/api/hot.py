"""The routes that answer most as plain ASGI: read, work, write, and nothing between.

Embeddings are asked for thousands of times a second, and a framework's routing, dependency and
response layers cost more than tokenizing a query. Everything else goes on to the framework's
application; openapi.py describes these routes beside its own.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedserve.api.body import Fields, LimitedBody, parse_object
from embedserve.api.errors import BUG, error_response, respond
from embedserve.api.replies import Reply, Services
from embedserve.errors import EmbedserveError, InvalidRequestError, OverloadedError

logger = logging.getLogger(__name__)

HotRoute = Callable[[Services, Fields, float | None], Awaitable[Reply]]
"""Services, body, and the seconds that the client waits (None: as long as it takes)."""

NamedRoute = Callable[[Services, str, Fields, float | None], Awaitable[Reply]]
"""The same of what the path names."""

# Most answers are there sooner; only for those that are not is it worth a task to watch the client.
_WATCH_AFTER_S = 0.05
# A request and its answer of this size together leave much behind: a token that was read took 440
# bytes, a body that was parsed several times its own.
_LARGE_BYTES = 64 * 1024
_TIMEOUT = b"x-request-timeout-ms"
_GONE = 499
"""nginx's number for a client that left."""


class HotPath:
    """ASGI application that answers some paths itself and passes all others on."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Mapping[str, HotRoute],
        named: Mapping[str, NamedRoute],
        services: Services,
        max_request_bytes: int,
    ) -> None:
        """Answer `routes`, and those of `named`, which have one `{name}` in their path."""
        self._app = app
        self._routes = routes
        self._named = [
            (re.compile(re.escape(path).replace(r"\{name\}", "([^/]+)")), path, route)
            for path, route in named.items()
        ]
        self._services = services
        self._max_request_bytes = max_request_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, route = self._found(scope["path"])
        if route is None:
            await self._pass_on(scope, receive, send)
            return
        if scope["method"] != "POST":
            refusal = Response("405 method not allowed", 405, {"Allow": "POST"}, "text/plain")
            await refusal(scope, receive, send)
            return
        started = time.perf_counter()
        status = await self._answer(route, scope, receive, send)
        seconds = time.perf_counter() - started
        self._services.metrics.count_request(path, status, seconds)

    def _found(self, path: str) -> tuple[str, HotRoute | None]:
        """Return the route of a path, and how it is written where routes are listed."""
        if path in self._routes:
            return path, self._routes[path]
        for pattern, written, route in self._named:
            if match := pattern.fullmatch(path):
                return written, _with_name(route, match[1])
        return path, None

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the framework answer."""
        size_bytes = 0

        async def counting_receive() -> Message:
            nonlocal size_bytes
            message = await receive()
            size_bytes += len(message.get("body", b""))
            return message

        try:
            await _unless_stopped(self._app, scope, counting_receive, send)
        finally:
            self._tell_freed(size_bytes)

    def _tell_freed(self, size_bytes: int) -> None:
        if size_bytes >= _LARGE_BYTES:
            self._services.freed.tell()

    async def _answer(self, route: HotRoute, scope: Scope, receive: Receive, send: Send) -> int:
        """Send the answer and return its status; 499 when the client left first."""
        size_bytes = 0
        try:
            body = await self._read(receive)
            if body is None:
                return _GONE
            size_bytes = len(body)
            fields = Fields(await parse_object(body))
            work = route(self._services, fields, timeout_of(scope["headers"]))
            reply = await _unless_gone(receive, work)
            if reply is None:
                return _GONE
            size_bytes += len(reply.body)
        except EmbedserveError as error:
            return await self._refuse(error, scope, receive, send)
        except asyncio.CancelledError:
            return await self._refuse(_stopped(), scope, receive, send)
        except Exception:
            logger.exception("unexpected failure in POST %s", scope["path"])
            await error_response(scope["path"], 500, BUG)(scope, receive, send)
            return 500
        finally:
            self._tell_freed(size_bytes)
        if reply.truncated:
            self._services.metrics.count_truncated(reply.truncated)
        await send({"type": "http.response.start", "status": 200, "headers": reply.headers})
        await send({"type": "http.response.body", "body": reply.body})
        return 200

    async def _refuse(
        self, error: EmbedserveError, scope: Scope, receive: Receive, send: Send
    ) -> int:
        """Send a deliberate error and return its status."""
        self._services.metrics.count_refusal(error)
        refusal = respond(scope["path"], error)
        await refusal(scope, receive, send)
        return refusal.status_code

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the whole body, or None when the client left before its end."""
        body, is_more = LimitedBody(self._max_request_bytes), True
        while is_more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body.add(message.get("body", b""))
            is_more = message.get("more_body", False)
        return body.whole()


def _with_name(route: NamedRoute, name: str) -> HotRoute:
    return lambda services, fields, timeout_s: route(services, name, fields, timeout_s)


def timeout_of(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """Return the seconds that `X-Request-Timeout-Ms` allows, None without that header.

    Raises InvalidRequestError for what is no positive whole number.
    """
    for name, value in headers:
        if name == _TIMEOUT:
            # More digits than any wait has would only overflow.
            if not (value.isdigit() and len(value) <= 12 and int(value)):
                shown = value[:50].decode("latin-1")
                raise InvalidRequestError(
                    f"Header `X-Request-Timeout-Ms` must be a whole number of milliseconds from 1 "
                    f"on, not `{shown}`."
                )
            return int(value) / 1000
    return None


@dataclass
class _Watch:
    """Cancels the task that works for a client when that client leaves."""

    receive: Receive
    working: "asyncio.Task[object]"
    watcher: "asyncio.Task[None] | None" = None
    has_left: bool = False

    def start(self) -> None:
        self.watcher = asyncio.ensure_future(self._wait())

    async def _wait(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass  # nothing else is of interest here
        self.has_left = True
        self.working.cancel()


async def _unless_gone(receive: Receive, work: Awaitable[Reply]) -> Reply | None:
    """Await `work`; drop it, and return None, when the client leaves first."""
    working = asyncio.current_task()
    if working is None:
        raise RuntimeError("This is a bug: a request outside of a task.")
    watch = _Watch(receive, working)
    timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_S, watch.start)
    try:
        return await work
    except asyncio.CancelledError:
        if not watch.has_left:
            raise
        working.uncancel()
        return None
    finally:
        timer.cancel()
        if watch.watcher:
            watch.watcher.cancel()


async def _unless_stopped(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Let the framework answer; when the server stops before it began to, refuse the request."""
    has_begun = False

    async def noting_send(message: Message) -> None:
        nonlocal has_begun
        has_begun = True
        await send(message)

    try:
        await app(scope, receive, noting_send)
    except asyncio.CancelledError:
        if has_begun:
            raise
        await respond(scope["path"], _stopped())(scope, receive, send)


def _stopped() -> OverloadedError:
    """Return the refusal of a task that was cancelled: only a stop whose time is up does that."""
    if task := asyncio.current_task():
        task.uncancel()
    return OverloadedError("The server is stopping; send the request again later.")
