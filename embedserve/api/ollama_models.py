"""Ollama's dialect: list, describe, pull, copy, create and remove models. Shapes: docs/api.md."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from embedserve.api import chat_ollama
from embedserve.api.body import Fields, read_object
from embedserve.api.chat_lists import chat_models, with_problem
from embedserve.api.replies import json_reply, services
from embedserve.errors import (
    InvalidNameError,
    InvalidRequestError,
    ModelNotFoundError,
    NotFoundError,
)
from embedserve.services.chat_names import is_chat_name
from embedserve.services.model_report import ModelReport
from embedserve.services.models import Overrides, PullRequest

router = APIRouter(tags=["ollama"])

Step = dict[str, str | int]

CHAT_FIELDS = ("system", "template", "messages", "license", "renderer", "parser")
"""Of `/api/create`, without effect on embeddings."""


@router.head("/api/tags", include_in_schema=False)
@router.get("/api/tags")
async def tags(request: Request) -> Response:
    """List the installed models, newest first, then those that answer from an index."""
    library = services(request).models
    reports = await asyncio.to_thread(library.reports)
    chats = await chat_models(request)
    disk_bytes = await asyncio.to_thread(library.disk_bytes)
    models = [_tag(report) for report in reports]
    reply = json_reply(
        {
            "models": models + [chat_ollama.tag_of(one) for one in chats.models],
            "embedserve": {"disk_bytes": disk_bytes},
        }
    )
    return with_problem(reply, chats)


@router.post("/api/show")
async def show(request: Request) -> Response:
    """Describe one model: `{"model"}`."""
    name = _model_name(Fields(await read_object(request)))
    if is_chat_name(name):
        return await chat_ollama.shown(request, name)
    report = await report_of(request, name)
    model_info = dict(report.model_info)
    if request.headers.get("user-agent", "").startswith("GitHubCopilotChat/"):
        model_info["general.basename"] = name  # what it shows in its list of models
    return json_reply(
        {
            "license": report.licence,
            "parameters": "\n".join(map(_parameter, report.parameters.items())),
            "details": details_of(report),
            "model_info": model_info,
            "capabilities": [report.capability],
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
    except InvalidNameError:
        raise InvalidNameError(f'name "{name}" is invalid', field="model") from None
    except ModelNotFoundError:
        raise NotFoundError(f"model '{name}' not found") from None
    return Response(status_code=200)


@router.post("/api/copy")
async def copy(request: Request) -> Response:
    """Install a model under another name as well: `{"source", "destination"}`."""
    fields = Fields(await read_object(request))
    names = {field: fields.text(field) for field in ("source", "destination")}
    library = services(request).models
    for field, name in names.items():
        try:
            library.display(name)
        except InvalidNameError:
            raise InvalidNameError(f'{field} "{name}" is invalid', field=field) from None
    try:
        await asyncio.to_thread(library.copy, names["source"], names["destination"])
    except ModelNotFoundError as error:
        raise NotFoundError(f'model "{error.name}" not found{error.hint}') from None
    return Response(status_code=200)


@router.post("/api/create")
async def create(request: Request) -> Response:
    """Install a model under another name with other parameters: `{"model", "from", "parameters"}`.

    The answer is lines of JSON, or one object where `stream` is false.
    """
    fields = Fields(await read_object(request))
    library = services(request).models
    target, source = fields.text("model") or fields.text("name"), fields.text("from")
    library.display(target)
    _refuse_uploads(fields, source)
    parameters = fields.table("parameters").items()
    made = await asyncio.to_thread(library.create, source, target, parameters)
    warnings = (*made.warnings, *_left_out(fields))
    if not fields.flag("stream", default=True):
        return json_reply({"status": "success", "warnings": warnings})
    layers = (f"using existing layer sha256:{digest}" for digest in made.layers)
    steps = (*layers, *warnings, "writing manifest", "success")
    lines = b"".join(_line({"status": step}) for step in steps)
    return Response(lines, media_type="application/x-ndjson")


@router.post("/api/pull")
async def pull(request: Request) -> Response:
    """Fetch, export and verify a model: `{"model", "stream"}`; progress as lines of JSON.

    The fields that `embedserve pull` has as options are taken too. The model is installed even
    when the client leaves before that.
    """
    fields = Fields(await read_object(request))
    wanted = _pull_request(fields)
    library = services(request).models
    if not fields.flag("stream", default=True):
        try:
            await asyncio.wrap_future(library.start_pull(wanted))
        except NotFoundError as error:
            raise NotFoundError(_pull_error(error)) from error
        return json_reply({"status": "success"})
    steps: asyncio.Queue[Step | None] = asyncio.Queue()
    put = partial(_put, asyncio.get_running_loop(), steps)

    def progress(stage: str, done: int | None, total: int | None) -> None:
        numbers = {"completed": done, "total": total}
        put({"status": stage, **{k: v for k, v in numbers.items() if v is not None}})

    pull = library.start_pull(wanted, progress)
    pull.add_done_callback(lambda _: put(None))
    return StreamingResponse(_pull_lines(pull, steps), media_type="application/x-ndjson")


def _pull_error(error: BaseException) -> str:
    # Clients know these words for a name that leads nowhere.
    known = "pull model manifest: file does not exist: " if isinstance(error, NotFoundError) else ""
    return f"{known}{error}"


def _refuse_uploads(fields: Fields, source: str) -> None:
    """Refuse to make a model from anything but an installed one."""
    for field in ("files", "adapters", "quantize", "quantization"):
        if fields.raw(field):
            raise InvalidRequestError(
                f"`{field}` is not possible here: models are made from installed ones "
                "(`from`), and pulled in the precision that their tag or `recipe` names.",
                field=field,
            )
    if not source.strip():
        raise InvalidRequestError("neither 'from' or 'files' was specified", field="from")


def _left_out(fields: Fields) -> list[str]:
    """Say which fields that chat models have are not kept."""
    given = [f"`{name}`" for name in CHAT_FIELDS if fields.raw(name)]
    return [f"left out, as this model does not chat: {', '.join(given)}"] if given else []


def _pull_request(fields: Fields) -> PullRequest:
    if fields.raw("from") is not None:
        raise InvalidRequestError(
            "A folder is not pulled over HTTP: whoever reaches the port could have the server "
            "read any. Stop the server and run `embedserve pull NAME --from FOLDER`."
        )
    prompts = ("query_prompt", "document_prompt")
    # An empty prompt says that there is none; an absent one leaves it to the checkpoint.
    query, document = (None if fields.raw(name) is None else fields.text(name) for name in prompts)
    name = fields.text("model") or fields.text("name")
    if not name.strip():
        raise InvalidNameError("invalid model name", field="model")
    return PullRequest(
        name,
        recipe=fields.text("recipe") or None,
        engine=fields.text("engine") or None,
        is_forced=fields.flag("force", default=False),
        accepts_loss=fields.flag("accept_loss", default=False),
        overrides=Overrides(
            pooling=fields.text("pooling") or None,
            max_tokens=fields.whole("max_tokens"),
            query_prompt=query,
            document_prompt=document,
            ignores_onnx=fields.flag("ignore_onnx", default=False),
        ),
    )


async def _pull_lines(
    pull: Future[Any], steps: "asyncio.Queue[Step | None]"
) -> AsyncIterator[bytes]:
    try:
        yield _line({"status": "pulling manifest"})
        while step := await steps.get():
            yield _line(step)
        error = pull.exception()
        yield _line({"error": _pull_error(error)} if error else {"status": "success"})
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
    except ModelNotFoundError as error:
        raise NotFoundError(f"model '{library.display(name)}' not found{error.hint}") from None


def _model_name(fields: Fields) -> str:
    """Return the model that is named, in the new spelling of the field or the old."""
    name = fields.text("model") or fields.text("name")
    if not name.strip():
        raise InvalidRequestError("model is required", field="model")
    return name


def _parameter(item: tuple[str, int | str]) -> str:
    """Return a line of Ollama's text; clients read the number of `num_ctx` from it."""
    name, value = item
    shown = orjson.dumps(value).decode() if isinstance(value, str) else str(value)
    return f"{name:<30} {shown}"


def details_of(report: ModelReport) -> dict[str, Any]:
    """Return what several routes say of a model."""
    return {
        "parent_model": report.parent,
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
        "details": details_of(report),
        "capabilities": [report.capability],
        "embedserve": {"engine": report.engine, "recipe": report.recipe},
    }
