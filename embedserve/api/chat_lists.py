"""The models that answer from an index, for lists of every dialect."""

from fastapi import Request, Response

from embedserve.api.replies import services
from embedserve.services.chat import ChatModels

UPSTREAM_ERROR = "X-Upstream-Error"
"""On a list that lacks an upstream's part: why."""


async def chat_models(request: Request) -> ChatModels:
    """List them; for a request that this very server has sent, without asking upstreams again."""
    chat = services(request).chat
    asks = not chat.upstreams.has_passed(request.scope["headers"])
    return await chat.models(request.headers.get("authorization", ""), asks=asks)


def with_problem(reply: Response, found: ChatModels) -> Response:
    """Return the reply, with what keeps an upstream's models from being in it."""
    if found.problem:
        reply.headers[UPSTREAM_ERROR] = "unreachable"
    return reply
