"""What every dialect needs to answer: the services, and JSON written straight from arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request, Response

from embedserve.services.embedding import EmbeddingService
from embedserve.services.health import HealthService
from embedserve.services.indexes import IndexService
from embedserve.services.ingestion import IngestionService
from embedserve.services.model_library import ModelLibrary
from embedserve.services.search import SearchService


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
