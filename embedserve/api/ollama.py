"""Ollama's dialect: embeddings and version. Shapes: docs/api.md.

Models are in ollama_models; loading them without a text, by `generate` and `chat`, in ollama_load.
"""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from embedserve import __version__
from embedserve.api.body import Fields
from embedserve.api.embedding_fields import embed_texts, errors_of, read_extras, read_inputs
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
    """Embed: `{"model", "input", "truncate", "dimensions", "keep_alive", "options"}`.

    Beyond those Ollama has, see `embedding_fields`.
    """
    keep_alive_s = seconds_of(fields.raw("keep_alive"))
    extras = read_extras(fields)
    model = fields.text("model")
    if not model.strip():
        raise NotFoundError("model '' not found")
    inputs = read_inputs(services, model, fields.raw("input"), extras)
    wanted = EmbedRequest(
        model=model,
        texts=inputs.texts,
        truncate=fields.flag("truncate", default=True),
        dimensions=fields.whole("dimensions"),
        max_tokens=_num_ctx(fields),
        keep_alive_s=keep_alive_s,
        timeout_s=timeout_s,
        input_type=extras.input_type,
        truncate_side=extras.truncate_side,
    )
    found = await embed_texts(services, wanted, extras, inputs.failures)
    reply: dict[str, Any] = {"model": model, "embeddings": found.rows}
    if wanted.texts:
        reply |= {
            "total_duration": found.result.total_ns,
            "load_duration": found.result.load_ns,
            "prompt_eval_count": found.result.tokens,
        }
    if found.result.warnings:
        reply["warnings"] = found.result.warnings
    if found.failures:
        reply["errors"] = errors_of(found.failures)
    return fast_reply(reply, truncated=found.truncated)


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


def _num_ctx(fields: Fields) -> int | None:
    """Return the length limit among the options; others have no meaning for embeddings."""
    value = fields.table("options").raw("num_ctx")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError('option "num_ctx" must be of type integer', field="options")
    # Ollama raises smaller values to 4: two special tokens and room for two more.
    return max(int(value), 4) if value > 0 else None
