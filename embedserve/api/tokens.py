"""Texts to token ids and back, with a model's own tokenizer. Shapes: docs/api.md."""

from typing import Any

from fastapi import APIRouter, Request, Response

from embedserve.api.body import Fields, read_object
from embedserve.api.replies import json_reply, services
from embedserve.errors import InvalidRequestError, NotFoundError

router = APIRouter(tags=["tokens"])


@router.post("/api/tokenize")
async def tokenize(request: Request) -> Response:
    """Return the token ids of texts: `{"model", "input", "add_special_tokens", "offsets"}`."""
    fields = Fields(await read_object(request))
    name = _model_name(fields)
    texts = fields.texts("input")
    with_special = fields.flag("add_special_tokens", default=True)
    has_offsets = fields.flag("offsets", default=False)
    found = await services(request).embedding.read_tokens(name, texts, with_special=with_special)
    reply: dict[str, Any] = {"model": name, "tokens": [one.ids for one in found]}
    reply["count"] = sum(len(one.ids) for one in found)
    if has_offsets:
        reply["offsets"] = [one.offsets for one in found]
    return json_reply(reply)


@router.post("/api/detokenize")
async def detokenize(request: Request) -> Response:
    """Return the texts of token ids: `{"model", "tokens", "skip_special_tokens"}`."""
    fields = Fields(await read_object(request))
    name = _model_name(fields)
    ids = _ids(fields.raw("tokens"))
    without_special = fields.flag("skip_special_tokens", default=True)
    embedding = services(request).embedding
    texts = await embedding.write_tokens(name, ids, without_special=without_special)
    return json_reply({"model": name, "texts": texts})


def _model_name(fields: Fields) -> str:
    name = fields.text("model")
    if not name.strip():
        raise NotFoundError("model '' not found")
    return name


def _ids(value: object) -> list[list[int]]:
    """Return one list of ids, or several, as several."""
    lists = value if isinstance(value, list) else None
    if lists and not isinstance(lists[0], list):
        lists = [lists]
    if lists is None or not all(isinstance(one, list) and _are_ids(one) for one in lists):
        raise InvalidRequestError(
            "field `tokens` must be a list of token ids, or of such lists", field="tokens"
        )
    return lists


def _are_ids(values: list[object]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) for value in values)
