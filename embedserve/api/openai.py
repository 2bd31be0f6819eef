"""OpenAI's dialect: embeddings and the list of models. Shapes: docs/api.md."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from embedserve.api import chat_openai
from embedserve.api.body import Fields
from embedserve.api.chat_lists import chat_models, with_problem
from embedserve.api.embedding_fields import Embedded, embed_texts, read_extras, read_inputs
from embedserve.api.ollama_models import report_of
from embedserve.api.replies import Reply, Services, fast_reply, json_reply, services
from embedserve.errors import InvalidRequestError, NotFoundError
from embedserve.services.chat_names import is_chat_name, parse_chat_name
from embedserve.services.embedding import EmbedRequest
from embedserve.services.model_report import ModelReport

router = APIRouter(prefix="/v1", tags=["openai"])

MEDIA_TYPE = "application/json"

TOKEN_IDS = (
    "invalid input type: these are token ids of another model's vocabulary, and the request does "
    "not say of which. Send the texts themselves; LangChain's OpenAIEmbeddings does with "
    "`check_embedding_ctx_length=False`."
)


async def embeddings(available: Services, fields: Fields, timeout_s: float | None) -> Reply:
    """Embed one text or many: `{"model", "input", "encoding_format", "dimensions"}`.

    Beyond those OpenAI has, see `embedding_fields`.
    """
    extras = read_extras(fields)
    value = fields.raw("input")
    if value is None or value == []:
        raise InvalidRequestError("invalid input", field="input")
    model = fields.text("model")
    if not model.strip():
        raise NotFoundError("model '' not found")
    if _holds_token_ids(value):
        raise InvalidRequestError(TOKEN_IDS, field="input")
    # An empty string is a text here, unlike in Ollama's own dialect.
    inputs = read_inputs(available, model, [""] if value == "" else value, extras)
    wanted = EmbedRequest(
        model,
        inputs.texts,
        dimensions=fields.whole("dimensions"),
        is_exact_size=True,
        timeout_s=timeout_s,
        input_type=extras.input_type,
        truncate_side=extras.truncate_side,
    )
    found = await embed_texts(available, wanted, extras, inputs.failures)
    return fast_reply(
        _shape(model, found), truncated=found.truncated, media_type=MEDIA_TYPE.encode()
    )


@router.get("/models")
async def models(request: Request) -> Response:
    """List the installed models, and those that answer from an index."""
    reports = await asyncio.to_thread(services(request).models.reports)
    chats = await chat_models(request)
    data = [_model(report, report.name) for report in reports]
    data += [chat_openai.model_of(one) for one in chats.models]
    reply = json_reply({"object": "list", "data": data}, media_type=MEDIA_TYPE)
    return with_problem(reply, chats)


@router.get("/models/{name:path}")
async def model(request: Request, name: str) -> Response:
    """Describe one model; ids may hold slashes."""
    if is_chat_name(name):
        found = await services(request).chat.find(parse_chat_name(name))
        return json_reply(chat_openai.model_of(found), media_type=MEDIA_TYPE)
    return json_reply(_model(await report_of(request, name), name), media_type=MEDIA_TYPE)


def _shape(model: str, found: Embedded) -> dict[str, Any]:
    data = [
        {"object": "embedding", "embedding": row, "index": position}
        for position, row in enumerate(found.rows)
    ]
    for position, message in found.failures.items():
        data[position]["error"] = message
    tokens = found.result.tokens
    reply: dict[str, Any] = {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    if found.result.warnings:
        reply["warnings"] = found.result.warnings
    return reply


def _holds_token_ids(value: object) -> bool:
    """Tell whether `input` is a list of whole numbers, or of lists of them."""
    first = value[0] if isinstance(value, list) and value else None
    if isinstance(first, list) and first:
        first = first[0]
    return isinstance(first, int) and not isinstance(first, bool)


def _model(report: ModelReport, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": report.created,
        "owned_by": report.namespace,
    }
