"""Ollama's dialect: embeddings, models, version. Shapes: docs/api.md."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from embedserve import __version__
from embedserve.api.body import Fields, read_object
from embedserve.api.replies import json_reply, services
from embedserve.errors import (
    EmbedserveError,
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
)
from embedserve.services.embedding import EmbedRequest
from embedserve.services.model_library import ModelReport

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


@router.post("/api/embed")
async def embed(request: Request) -> Response:
    """Embed one text or many: `{"model", "input", "truncate", "dimensions", "options"}`."""
    fields = Fields(await read_object(request))
    model = fields.text("model")
    if not model.strip():
        raise NotFoundError("model '' not found")
    texts = texts_of(fields.raw("input"))
    is_truncating = fields.flag("truncate", default=True)
    result = await services(request).embedding.embed(
        EmbedRequest(
            model=model,
            texts=texts,
            truncate=is_truncating,
            dimensions=fields.whole("dimensions"),
            max_tokens=_num_ctx(fields),
        )
    )
    reply: dict[str, Any] = {"model": model, "embeddings": result.vectors}
    if texts:
        reply |= {
            "total_duration": result.total_ns,
            "load_duration": result.load_ns,
            "prompt_eval_count": result.tokens,
        }
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
    result = await services(request).embedding.embed(
        EmbedRequest(model=model, texts=[prompt] if prompt else [], max_tokens=_num_ctx(fields))
    )
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
    fields = Fields(await read_object(request))
    name = fields.text("model") or fields.text("name")
    if not name.strip():
        raise InvalidRequestError("model is required")
    try:
        report = await asyncio.to_thread(services(request).models.report, name)
    except ModelNotFoundError:
        shown = services(request).models.display(name)
        raise NotFoundError(f"model '{shown}' not found") from None
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
    """Remove one model: `{"model"}`; it is unloaded first."""
    fields = Fields(await read_object(request))
    name = fields.text("model") or fields.text("name")
    if not name.strip():
        raise InvalidRequestError("model is required")
    try:
        await asyncio.to_thread(services(request).models.remove, name)
    except ModelNotFoundError:
        raise NotFoundError(f"model '{name}' not found") from None
    return Response(status_code=200)


@router.post("/api/pull")
async def pull(request: Request) -> Response:
    """Fetch, export and verify a model: `{"model", "stream"}`; progress as lines of JSON."""
    fields = Fields(await read_object(request))
    name = fields.text("model") or fields.text("name")
    services(request).models.display(name)  # refuses a name outside the grammar
    lines = _pull_lines(request, name)
    if fields.flag("stream", default=True):
        return StreamingResponse(lines, media_type="application/x-ndjson")
    last: dict[str, Any] = {}
    async for line in lines:
        last = orjson.loads(line)
    if "error" in last:
        raise EmbedserveError(str(last["error"]))
    return json_reply({"status": "success"})


async def _pull_lines(request: Request, name: str) -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    steps: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    def put(step: dict[str, Any] | None) -> None:
        loop.call_soon_threadsafe(steps.put_nowait, step)

    def progress(stage: str, done: int | None, total: int | None) -> None:
        numbers = {"completed": done, "total": total}
        put({"status": stage, **{k: v for k, v in numbers.items() if v is not None}})

    def work() -> None:
        try:
            services(request).models.pull(name, progress=progress)
            put({"status": "success"})
        except EmbedserveError as error:
            put({"error": error.message})
        finally:
            put(None)

    task = asyncio.create_task(asyncio.to_thread(work))
    yield orjson.dumps({"status": "pulling manifest"}) + b"\n"
    while step := await steps.get():
        yield orjson.dumps(step) + b"\n"
    await task


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
