"""Ollama's dialect: embeddings, models, version. Shapes: docs/api.md."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from embedserve import __version__
from embedserve.api.body import Fields, read_object
from embedserve.api.replies import json_reply, services, unless_gone
from embedserve.errors import (
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
)
from embedserve.services.embedding import EmbedRequest
from embedserve.services.model_library import ModelReport
from embedserve.services.models import PullRequest

router = APIRouter(tags=["ollama"])

Step = dict[str, str | int]

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


@router.post("/api/embed")
async def embed(request: Request) -> Response:
    """Embed one text or many: `{"model", "input", "truncate", "dimensions", "options"}`."""
    fields = Fields(await read_object(request))
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
    )
    result = await unless_gone(request, services(request).embedding.embed(wanted))
    reply: dict[str, Any] = {"model": model, "embeddings": result.vectors}
    if texts:
        reply |= {
            "total_duration": result.total_ns,
            "load_duration": result.load_ns,
            "prompt_eval_count": result.tokens,
        }
    if result.warnings:
        reply["warnings"] = result.warnings
    return json_reply(reply, truncated=result.truncated)


@router.post("/api/embeddings")
async def embeddings(request: Request) -> Response:
    """Embed one text: `{"model", "prompt"}`. Too long a text is cut, and the reply says so."""
    fields = Fields(await read_object(request))
    model = fields.text("model")
    if not model.strip():
        raise InvalidRequestError("model is required")
    # `input` instead of `prompt` is a common mistake; Ollama answers it with an empty vector.
    prompt = fields.text("prompt") or fields.text("input")
    texts = [prompt] if prompt else []
    wanted = EmbedRequest(model=model, texts=texts, max_tokens=_num_ctx(fields))
    result = await unless_gone(request, services(request).embedding.embed(wanted))
    vector = result.vectors[0] if prompt else []
    return json_reply({"embedding": vector}, truncated=result.truncated)


@router.head("/api/tags", include_in_schema=False)
@router.get("/api/tags")
def tags(request: Request) -> Response:
    """List the installed models, newest first."""
    reports = services(request).models.reports()
    return json_reply({"models": [_tag(report) for report in reports]})


@router.post("/api/show")
async def show(request: Request) -> Response:
    """Describe one model: `{"model"}`."""
    report = await report_of(request, _model_name(Fields(await read_object(request))))
    return json_reply(
        {
            "license": report.licence,
            "parameters": f"{'num_ctx':<30} {report.max_tokens}",
            "details": _details(report),
            "model_info": report.model_info,
            "capabilities": ["embedding"],
            "modified_at": report.modified_at,
            "embedserve": report.facts,
        }
    )


@router.delete("/api/delete")
async def delete(request: Request) -> Response:
    """Remove one model: `{"model"}`, by its own name; what uses it now goes on to its end."""
    name = _model_name(Fields(await read_object(request)))
    try:
        await asyncio.to_thread(services(request).models.remove, name)
    except ModelNotFoundError:
        raise NotFoundError(f"model '{name}' not found") from None
    return Response(status_code=200)


@router.post("/api/pull")
async def pull(request: Request) -> Response:
    """Fetch, export and verify a model: `{"model", "stream"}`; progress as lines of JSON.

    The model is installed even when the client leaves before that.
    """
    fields = Fields(await read_object(request))
    wanted = PullRequest(_model_name(fields))
    library = services(request).models
    if not fields.flag("stream", default=True):
        await asyncio.wrap_future(library.start_pull(wanted))
        return json_reply({"status": "success"})
    steps: asyncio.Queue[Step | None] = asyncio.Queue()
    put = partial(_put, asyncio.get_running_loop(), steps)

    def progress(stage: str, done: int | None, total: int | None) -> None:
        numbers = {"completed": done, "total": total}
        put({"status": stage, **{k: v for k, v in numbers.items() if v is not None}})

    pull = library.start_pull(wanted, progress)
    pull.add_done_callback(lambda _: put(None))
    return StreamingResponse(_pull_lines(pull, steps), media_type="application/x-ndjson")


async def _pull_lines(
    pull: Future[Any], steps: "asyncio.Queue[Step | None]"
) -> AsyncIterator[bytes]:
    try:
        yield _line({"status": "pulling manifest"})
        while step := await steps.get():
            yield _line(step)
        error = pull.exception()
        yield _line({"error": str(error)} if error else {"status": "success"})
    finally:
        pull.cancel()  # the client has left, perhaps early: nobody listens any more


def _put(
    loop: asyncio.AbstractEventLoop, steps: "asyncio.Queue[Step | None]", step: Step | None
) -> None:
    with suppress(RuntimeError):  # the loop is closed: the server has stopped
        loop.call_soon_threadsafe(steps.put_nowait, step)


def _line(step: Step) -> bytes:
    return orjson.dumps(step) + b"\n"


async def report_of(request: Request, name: str) -> ModelReport:
    """Describe a model, or say in Ollama's words that there is none of that name."""
    library = services(request).models
    try:
        return await asyncio.to_thread(library.report, name)
    except ModelNotFoundError:
        raise NotFoundError(f"model '{library.display(name)}' not found") from None


def _model_name(fields: Fields) -> str:
    """Return the model that is named, in the new spelling of the field or the old."""
    name = fields.text("model") or fields.text("name")
    if not name.strip():
        raise InvalidRequestError("model is required")
    return name


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


def _details(report: ModelReport) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "onnx",
        "family": report.family,
        "families": [report.family],
        "parameter_size": report.parameter_size,
        "quantization_level": report.recipe.upper(),
        "context_length": report.max_tokens,
        "embedding_length": report.dimensions,
    }


def _tag(report: ModelReport) -> dict[str, Any]:
    return {
        "name": report.name,
        "model": report.name,
        "modified_at": report.modified_at,
        "size": report.size_bytes,
        "digest": report.digest,
        "details": _details(report),
        "capabilities": ["embedding"],
    }
