"""What every dialect needs to answer: the services, and JSON written straight from arrays."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from fastapi import HTTPException, Request, Response

from embedserve.services.embedding import EmbeddingService
from embedserve.services.health import HealthService
from embedserve.services.indexes import IndexService
from embedserve.services.ingestion import IngestionService
from embedserve.services.model_library import ModelLibrary
from embedserve.services.search import SearchService

T = TypeVar("T")


@dataclass(frozen=True)
class Services:
    """The use cases that the dialects translate to."""

    embedding: EmbeddingService
    models: ModelLibrary
    indexes: IndexService
    ingestion: IngestionService
    search: SearchService
    health: HealthService


def services(request: Request) -> Services:
    """Return the services of the app that serves this request."""
    found: Services = request.app.state.services
    return found


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, whose request has been read whole; drop it when the client leaves first."""
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            # nginx's number; nobody reads it, but the log of a proxy may.
            raise HTTPException(499, "request canceled")
        return task.result()
    finally:
        leaving.cancel()
        task.cancel()


def json_reply(
    value: object,
    *,
    status: int = 200,
    truncated: Sequence[int] = (),
    media_type: str = "application/json; charset=utf-8",
) -> Response:
    """Return JSON; float32 arrays are written in their shortest exact form.

    `truncated` (positions of texts that were cut) goes into the header `X-Truncated-Inputs`.
    """
    headers: dict[str, str] = {}
    if truncated:
        shown = ",".join(str(position) for position in truncated[:100])
        headers = {"X-Truncated-Inputs": shown, "X-Truncated-Count": str(len(truncated))}
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY, default=_default)
    return Response(body, status, headers, media_type)


def _default(value: Any) -> Any:  # noqa: ANN401  orjson's own signature
    # A slice of an array may not be contiguous, which orjson does not take.
    return value.tolist()
