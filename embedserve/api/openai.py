"""OpenAI's dialect: embeddings and the list of models. Shapes: docs/api.md."""

import base64
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from embedserve.api.body import Fields
from embedserve.api.ollama import texts_of
from embedserve.api.ollama_models import report_of
from embedserve.api.replies import Reply, Services, fast_reply, json_reply, services
from embedserve.errors import InvalidRequestError, NotFoundError
from embedserve.services.embedding import EmbedRequest
from embedserve.services.model_report import ModelReport
from embedserve.types import Vectors

router = APIRouter(prefix="/v1", tags=["openai"])

MEDIA_TYPE = "application/json"


async def embeddings(available: Services, fields: Fields, timeout_s: float | None) -> Reply:
    """Embed one text or many: `{"model", "input", "encoding_format", "dimensions"}`."""
    encoding = fields.text("encoding_format") or "float"
    if encoding.lower() not in ("float", "base64"):
        raise InvalidRequestError(
            f"Invalid value for 'encoding_format' = {encoding}. "
            "Supported values: ['float', 'base64']."
        )
    value = fields.raw("input")
    if value is None or value == []:
        raise InvalidRequestError("invalid input")
    model = fields.text("model")
    if not model.strip():
        raise NotFoundError("model '' not found")
    dimensions = fields.whole("dimensions")
    texts = [""] if value == "" else texts_of(value)
    wanted = EmbedRequest(model, texts, dimensions=dimensions, timeout_s=timeout_s)
    result = await available.embedding.embed(wanted)
    _check_dimensions(dimensions, result.vectors)
    reply: dict[str, Any] = {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": _encoded(row, encoding), "index": position}
            for position, row in enumerate(result.vectors)
        ],
        "model": model,
        "usage": {"prompt_tokens": result.tokens, "total_tokens": result.tokens},
    }
    if result.warnings:
        reply["warnings"] = result.warnings
    return fast_reply(reply, truncated=result.truncated, media_type=MEDIA_TYPE.encode())


@router.get("/models")
def models(request: Request) -> Response:
    """List the installed models."""
    reports = services(request).models.reports()
    data = [_model(report, report.name) for report in reports]
    return json_reply({"object": "list", "data": data}, media_type=MEDIA_TYPE)


@router.get("/models/{name:path}")
async def model(request: Request, name: str) -> Response:
    """Describe one model; ids may hold slashes."""
    return json_reply(_model(await report_of(request, name), name), media_type=MEDIA_TYPE)


def _check_dimensions(wanted: int | None, vectors: Vectors) -> None:
    # A number that the model cannot give has left its vectors whole, so they tell its own.
    found = vectors.shape[1]
    if wanted is not None and wanted != found:
        raise InvalidRequestError(
            f"Invalid value for 'dimensions' = {wanted}. This model gives {found}; ask for 1 to "
            f"{found}, or leave it out."
        )


def _encoded(row: Vectors, encoding: str) -> Vectors | str:
    if encoding.lower() == "float":
        return row
    # Little-endian float32, as the official clients decode it.
    return base64.b64encode(row.astype(np.dtype("<f4"), copy=False).tobytes()).decode("ascii")


def _model(report: ModelReport, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": report.created,
        "owned_by": report.namespace,
    }
