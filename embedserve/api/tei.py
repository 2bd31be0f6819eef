"""The dialect of Text Embeddings Inference: `/embed` and `/info`. Errors: tei_errors.py.

It serves one model; that is the default model here, unless a request names another.
"""

import asyncio
from typing import Any, cast

from fastapi import APIRouter, Request, Response

from embedserve import __version__
from embedserve.api.body import Fields
from embedserve.api.embedding_fields import TRUNCATE_SIDES
from embedserve.api.replies import Reply, Services, fast_reply, json_reply, services
from embedserve.errors import InvalidRequestError, NotFoundError
from embedserve.services.embedding import EmbedRequest
from embedserve.services.model_report import ModelReport
from embedserve.services.reading import TruncateSide
from embedserve.types import InputType

router = APIRouter(tags=["tei"])

MEDIA_TYPE = "application/json"
PROMPTS: dict[str, InputType] = {"query": "query", "document": "document", "passage": "document"}
"""By the names that models give their prompts."""


async def embed(available: Services, fields: Fields, timeout_s: float | None) -> Reply:
    """Embed: `{"inputs", "truncate", "truncation_direction", "prompt_name", "dimensions"}`."""
    side = fields.choice("truncation_direction", TRUNCATE_SIDES) or "right"
    prompt = fields.choice("prompt_name", tuple(PROMPTS))
    if not fields.flag("normalize", default=True):
        raise InvalidRequestError(
            "`normalize` cannot be false: vectors leave the model at unit length. Leave it out.",
            field="normalize",
        )
    texts = fields.texts("inputs")
    if not texts:
        raise InvalidRequestError("`inputs` cannot be empty", field="inputs")
    wanted = EmbedRequest(
        fields.text("model") or _default_model(available),
        texts,
        truncate=fields.flag("truncate", default=False),
        dimensions=fields.whole("dimensions"),
        timeout_s=timeout_s,
        input_type=PROMPTS[prompt] if prompt else None,
        truncate_side=cast(TruncateSide, side),
    )
    result = await available.embedding.embed(wanted)
    return fast_reply(result.vectors, truncated=result.truncated, media_type=MEDIA_TYPE.encode())


@router.get("/info")
async def info(request: Request) -> Response:
    """Describe the default model and what a request may hold."""
    found = services(request)
    report = await asyncio.to_thread(found.models.report, _default_model(found))
    return json_reply(_info(found, report), media_type=MEDIA_TYPE)


def _info(found: Services, report: ModelReport) -> dict[str, Any]:
    limits = found.embedding.limits
    return {
        "model_id": report.name,
        "model_sha": report.facts["revision"] or None,
        "model_dtype": report.recipe,
        "model_type": {"embedding": {"pooling": report.facts["pooling"]}},
        # Not requests are counted here but tokens: so many texts of full length may wait.
        "max_concurrent_requests": limits.queue_tokens // report.max_tokens,
        "max_input_length": report.max_tokens,
        "max_batch_tokens": limits.batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": limits.max_texts,
        "auto_truncate": False,
        "tokenization_workers": found.embedding.tokenizer_threads,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }


def _default_model(found: Services) -> str:
    if not found.models.default_model:
        raise NotFoundError(
            "There is no default model (EMBEDSERVE_DEFAULT_MODEL). Set one, or name a model in "
            "the field `model`."
        )
    return found.models.default_model
