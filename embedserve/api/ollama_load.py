"""Ollama's dialect: which models are in memory, and loading and letting go of them by hand.

`generate` and `chat` are how Ollama's clients do that; embedding models answer neither with text.
What indexes answer to `chat` is in `chat_ollama.py`.
Shapes: docs/api.md.
"""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request, Response

from embedserve.api import chat_ollama
from embedserve.api.body import Fields, read_object
from embedserve.api.keep_alive import LONGEST_S, seconds_of
from embedserve.api.ollama_models import details_of
from embedserve.api.replies import json_reply, services
from embedserve.errors import InvalidRequestError, ModelNotFoundError, NotFoundError
from embedserve.services.chat_names import is_chat_name
from embedserve.services.embedding import EmbedRequest
from embedserve.services.model_library import RunningModel
from embedserve.services.model_report import CAPABILITIES
from embedserve.services.reranking import RerankRequest

router = APIRouter(tags=["ollama"])


@router.get("/api/ps")
def ps(request: Request) -> Response:
    """List the models in memory, the longest to stay first."""
    library = services(request).models
    forever = datetime.now(UTC) + timedelta(seconds=LONGEST_S)
    running = library.running()
    models = [_running(one, forever, is_on_gpu=library.is_on_gpu) for one in running]
    return json_reply({"models": models})


@router.post("/api/generate")
async def generate(request: Request) -> Response:
    """Load a model, or let it go with `"keep_alive": 0`: `{"model", "keep_alive"}`, no prompt."""
    fields = Fields(await read_object(request))
    name = fields.text("model")
    if not name.strip():
        raise NotFoundError("model '' not found")
    reason = await _load(request, fields, "generate", is_empty=not fields.text("prompt"))
    return json_reply({**_done(name, reason), "response": ""})


@router.post("/api/chat")
async def chat(request: Request) -> Response:
    """Answer from an index (`rag/INDEX`); load any other model, or let it go: no messages."""
    value = await read_object(request)
    fields = Fields(value)
    name = fields.text("model")
    if not name.strip():
        raise InvalidRequestError("model is required", field="model")
    if is_chat_name(name):
        return await chat_ollama.chat(request, value)
    reason = await _load(request, fields, "chat", is_empty=not fields.raw("messages"))
    return json_reply({**_done(name, reason), "message": {"role": "assistant", "content": ""}})


async def _load(request: Request, fields: Fields, wanted: str, *, is_empty: bool) -> str:
    """Do what an empty request asks for and return its name; refuse any other."""
    name, found = fields.text("model"), services(request)
    keep_alive_s = seconds_of(fields.raw("keep_alive"))
    try:
        report = await asyncio.to_thread(found.models.report, name)
        if not is_empty:
            raise InvalidRequestError(f'"{name}" does not support {wanted}', field="model")
        if keep_alive_s == 0:
            await asyncio.to_thread(found.models.unload, name)
            return "unload"
        if report.capability == CAPABILITIES["reranker"]:
            # Ranked without documents, a query counts for nothing.
            await found.reranking.rank(RerankRequest("", [], name, keep_alive_s=keep_alive_s))
        else:
            await found.embedding.embed(EmbedRequest(name, [], keep_alive_s=keep_alive_s))
    except ModelNotFoundError as error:
        raise NotFoundError(f"model '{name}' not found{error.hint}") from None
    return "load"


def _done(name: str, reason: str) -> dict[str, Any]:
    return {
        "model": name,
        "created_at": _time(datetime.now(UTC)),
        "done": True,
        "done_reason": reason,
    }


def _running(one: RunningModel, forever: datetime, *, is_on_gpu: bool) -> dict[str, Any]:
    report, loaded = one.report, one.loaded
    return {
        "name": report.name,
        "model": report.name,
        "size": loaded.counted_bytes,
        "digest": report.digest,
        "details": details_of(report),
        "expires_at": _time(loaded.expires_at or forever),
        "size_vram": loaded.counted_bytes if is_on_gpu else 0,
        "context_length": report.max_tokens,
    }


def _time(moment: datetime) -> str:
    # Six digits: more are too many for some clients.
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
