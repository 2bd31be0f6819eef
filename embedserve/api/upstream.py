"""In front of an Ollama: what is not served here is answered by it, so that one URL gives both.

A model that is installed here is ours, any other the upstream's. Lists of models show both. What
is neither Ollama's nor OpenAI's path never leaves this server.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedserve.api.chat_lists import UPSTREAM_ERROR
from embedserve.api.errors import error_response
from embedserve.api.forward import Forwarder
from embedserve.api.peek import Recording, find_name
from embedserve.errors import InvalidRequestError, UpstreamError
from embedserve.services.chat_names import is_chat_name
from embedserve.services.ownership import Ownership
from embedserve.services.upstream_link import UpstreamLink

logger = logging.getLogger(__name__)

DIALECTS = ("/api/", "/v1/")
# Lists of both: the field with the models, and the field with a model's name.
LISTS = {
    "/api/tags": ("models", "name"),
    "/api/ps": ("models", "name"),
    "/v1/models": ("data", "id"),
}
# Routes whose bodies may be long, so that the model is looked for at their beginning.
BY_NAME = {
    **dict.fromkeys(("/api/generate", "/api/chat", "/api/push", "/api/pull"), ("model", "name")),
    **dict.fromkeys(("/v1/chat/completions", "/v1/completions", "/v1/responses"), ("model",)),
    "/v1/messages": ("model",),
    "/api/create": ("from",),
}
CAPABILITIES = {
    "/api/generate": "generate",
    "/v1/completions": "generate",
    "/api/push": "push",
    "/api/create": "create",
}
"""What a model of ours lacks where nothing here serves such a route; elsewhere it is chat."""
PULL = "/api/pull"
CHAT = ("/api/chat", "/v1/chat/completions")
"""Where an index is a model, in front of an upstream's or by itself."""
# Routes of ours that Ollama has not, by how they begin; what is not found there it would not know
# either, and files that were sent here are not for it.
ONLY_OURS = (
    *("/api/rerank", "/api/tokenize", "/api/detokenize", "/v1/rerank"),
    *("/v1/files", "/v1/vector_stores"),
)
NEVER_OURS = ("/api/blobs/", "/v1/audio/")


class UpstreamProxy:
    """ASGI middleware; `app` is what is served here."""

    def __init__(self, app: ASGIApp, link: UpstreamLink, ownership: Ownership) -> None:
        self._app = app
        self._forwarder = Forwarder(link)
        self._ownership = ownership

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer here, there, or from both."""
        if scope["type"] == "lifespan":
            try:
                await self._app(scope, receive, send)
            finally:
                await self._forwarder.close()
        elif scope["type"] != "http" or not self._may_leave(scope):
            await self._app(scope, receive, send)
        elif scope["method"] == "GET" and scope["path"] in LISTS:
            await self._list(scope, receive, send)
        elif scope["method"] == "POST" and scope["path"] in BY_NAME:
            await self._by_name(scope, receive, send)
        elif scope["path"].startswith(NEVER_OURS):
            await self._forwarder.forward(scope, receive, send)
        else:
            await self._ours_first(scope, receive, send)

    def _may_leave(self, scope: Scope) -> bool:
        path: str = scope["path"]
        # No `..` leads out of the dialects there.
        is_plain = path.startswith(DIALECTS) and "/." not in path
        return is_plain and not path.startswith(ONLY_OURS) and not self._forwarder.has_passed(scope)

    async def _by_name(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer here for models of ours, whatever the answer is."""
        body = Recording(receive)
        path = scope["path"]
        head = await body.read_head()
        # A long head takes a while, and names are looked up in files.
        name = await asyncio.to_thread(find_name, head, BY_NAME[path])
        if name is not None and is_chat_name(name) and path in CHAT:
            await self._app(scope, body.replay(), send)
            return
        is_ours = self._ownership.is_pulled_here if path == PULL else self._is_ours
        if name is None or not await asyncio.to_thread(is_ours, name):
            await self._forwarder.forward(scope, body.replay(), send)
        elif not await _answers(self._app, scope, body.replay(), send):
            message = f'"{name}" does not support {CAPABILITIES.get(path, "chat")}'
            await error_response(path, 400, message)(scope, receive, send)

    def _is_ours(self, name: str) -> bool:
        return is_chat_name(name) or self._ownership.is_ours(name)

    async def _ours_first(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer here; what is not found here is the upstream's."""
        body = Recording(receive)
        if not await _answers(self._app, scope, body, send, on_found=body.forget):
            await self._forwarder.forward(scope, body.replay(), send)

    async def _list(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the models of both: ours first, and no name twice."""
        theirs = asyncio.ensure_future(self._theirs(scope))
        try:
            ours = _Held()
            await self._app(scope, receive, ours)
            found = await theirs
        finally:
            theirs.cancel()
        if ours.status == 200:
            ours.body = self._merged(ours.body, found.models, *LISTS[scope["path"]])
            headers = MutableHeaders(raw=ours.headers)
            headers["content-length"] = str(len(ours.body))
            if found.problem:
                headers[UPSTREAM_ERROR] = found.problem
        await ours.release(send)

    async def _theirs(self, scope: Scope) -> "_Theirs":
        try:
            body = orjson.loads(await self._forwarder.fetch(scope))
            models = body[LISTS[scope["path"]][0]] or []
            return _Theirs([one for one in models if isinstance(one, dict)])
        except UpstreamError:
            return _Theirs([], "unreachable")
        except (ValueError, KeyError, TypeError, InvalidRequestError) as error:
            logger.warning(
                "the upstream's answer to %s is no list of models: %s", scope["path"], error
            )
            return _Theirs([], "no list of models")

    def _merged(self, body: bytes, theirs: list[Any], field: str, name: str) -> bytes:
        reply = orjson.loads(body)
        ours = reply[field] or []
        known = {self._ownership.key(str(one[name])) for one in ours}
        new = [one for one in theirs if self._ownership.key(str(one.get(name))) not in known]
        return orjson.dumps({**reply, field: ours + new})


@dataclass(frozen=True)
class _Theirs:
    models: list[Any]
    problem: str = ""


class _Held:
    """A `send` that holds the answer until it is complete."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
        self.body += message.get("body", b"")

    async def release(self, send: Send) -> None:
        """Send it."""
        start = {"type": "http.response.start", "status": self.status, "headers": self.headers}
        await send(start)
        await send({"type": "http.response.body", "body": self.body})


async def _answers(
    app: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    on_found: Callable[[], None] = lambda: None,
) -> bool:
    """Let `app` answer; False, and nothing is sent, when its answer is 404.

    `on_found` is called once it is known that it is not.
    """
    is_found = True

    async def send_found(message: Message) -> None:
        nonlocal is_found
        if message["type"] == "http.response.start":
            is_found = message["status"] != 404
            if is_found:
                on_found()
        if is_found:
            await send(message)

    await app(scope, receive, send_found)
    return is_found
