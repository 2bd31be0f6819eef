"""Ollama's dialect: embeddings and version; models are in ollama_models. Shapes: docs/api.md."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from embedserve import __version__
from embedserve.api.body import Fields
from embedserve.api.keep_alive import seconds_of
from embedserve.api.replies import Reply, Services, fast_reply, json_reply
from embedserve.errors import InvalidRequestError, NotFoundError
from embedserve.services.embedding import EmbedRequest

router = APIRouter(tags=["ollama"])

# Clients compare this with Ollama's releases and switch features off below some of them; the
# number is the release whose embeddings contract this server follows.
OLLAMA_VERSION = "0.33.0"


@router.head("/", include_in_schema=False)
@router.get("/", response_class=PlainTextResponse)
async def root() -> PlainTextResponse:
    """Answer the probe that clients send first."""
    return PlainTextResponse("Ollama is running")


@router.head("/api/version", include_in_schema=False)
@router.get("/api/version")
async def version() -> Response:
    """Return the Ollama release that is spoken, and embedserve's own version."""
    return json_reply({"version": OLLAMA_VERSION, "embedserve": __version__})


async def embed(services: Services, fields: Fields, timeout_s: float | None) -> Reply:
    """Embed: `{"model", "input", "truncate", "dimensions", "keep_alive", "options"}`."""
    keep_alive_s = seconds_of(fields.raw("keep_alive"))
    model = fields.text("model")
    if not model.strip():
        raise NotFoundError("model '' not found")
    texts = texts_of(fields.raw("input"))
    is_truncating = fields.flag("truncate", default=True)
    wanted = EmbedRequest(
        model=model,
        texts=texts,
        truncate=is_truncating,
        dimensions=fields.whole("dimensions"),
        max_tokens=_num_ctx(fields),
        keep_alive_s=keep_alive_s,
        timeout_s=timeout_s,
    )
    result = await services.embedding.embed(wanted)
    reply: dict[str, Any] = {"model": model, "embeddings": result.vectors}
    if texts:
        reply |= {
            "total_duration": result.total_ns,
            "load_duration": result.load_ns,
            "prompt_eval_count": result.tokens,
        }
    if result.warnings:
        reply["warnings"] = result.warnings
    return fast_reply(reply, truncated=result.truncated)


async def embeddings(services: Services, fields: Fields, timeout_s: float | None) -> Reply:
    """Embed one text: `{"model", "prompt", "keep_alive", "options"}`.

    Too long a text is cut, and the reply says so.
    """
    keep_alive_s = seconds_of(fields.raw("keep_alive"))
    model = fields.text("model")
    if not model.strip():
        raise InvalidRequestError("model is required")
    # `input` instead of `prompt` is a common mistake; Ollama answers it with an empty vector.
    prompt = fields.text("prompt") or fields.text("input")
    texts = [prompt] if prompt else []
    wanted = EmbedRequest(
        model=model,
        texts=texts,
        max_tokens=_num_ctx(fields),
        keep_alive_s=keep_alive_s,
        timeout_s=timeout_s,
    )
    result = await services.embedding.embed(wanted)
    vector = result.vectors[0] if prompt else []
    return fast_reply({"embedding": vector}, truncated=result.truncated)


def texts_of(value: object) -> list[str]:
    """Return `input` as a list: a string, a list of strings, or nothing.

    An empty string alone means no text (Ollama's way to load a model); inside a list it is one.
    """
    if value is None or value == "":
        return []
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return value
    raise InvalidRequestError("invalid input type")


def _num_ctx(fields: Fields) -> int | None:
    """Return the length limit among the options; others have no meaning for embeddings."""
    value = fields.table("options").raw("num_ctx")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError('option "num_ctx" must be of type integer')
    # Ollama raises smaller values to 4: two special tokens and room for two more.
    return max(int(value), 4) if value > 0 else None
