"""Texts to token ids and back, with a model's own tokenizer. Shapes: docs/api.md."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from embedserve.api.body import Fields
from embedserve.api.hot import HotRoute
from embedserve.api.replies import Reply, Services, fast_reply
from embedserve.errors import InvalidRequestError, NotFoundError

# Numbers, or pairs of them, that are written in one go: some milliseconds.
_PIECE = 20_000


async def tokenize(services: Services, fields: Fields, timeout_s: float | None) -> Reply:
    """Return the token ids of texts: `{"model", "input", "add_special_tokens", "offsets"}`."""
    name = _model_name(fields)
    has_offsets = fields.flag("offsets", default=False)
    found = await services.embedding.tokens.read(
        name,
        fields.texts("input"),
        with_special=fields.flag("add_special_tokens", default=True),
        with_offsets=has_offsets,
        timeout_s=timeout_s,
    )
    reply: dict[str, Any] = {"model": name}
    reply["tokens"] = await asyncio.to_thread(_written, [one.ids for one in found])
    reply["count"] = sum(len(one.ids) for one in found)
    if has_offsets:
        reply["offsets"] = await asyncio.to_thread(_written, [one.offsets for one in found])
    return fast_reply(reply)


async def detokenize(services: Services, fields: Fields, timeout_s: float | None) -> Reply:
    """Return the texts of token ids: `{"model", "tokens", "skip_special_tokens"}`."""
    name = _model_name(fields)
    tokens = services.embedding.tokens
    lists = _lists(fields.raw("tokens"))
    tokens.refuse_too_many_ids(lists)  # before each of them is looked at
    if not all(map(_are_ids, lists)):
        raise _no_ids()
    without_special = fields.flag("skip_special_tokens", default=True)
    texts = await tokens.write(name, lists, without_special=without_special, timeout_s=timeout_s)
    return fast_reply({"model": name, "texts": texts})


ROUTES: Mapping[str, HotRoute] = {"/api/tokenize": tokenize, "/api/detokenize": detokenize}


def _written(arrays: Sequence[NDArray[np.int32] | None]) -> list[orjson.Fragment]:
    """Return each array as JSON, written piece by piece: other threads run in between."""
    return [orjson.Fragment(b"[%b]" % b",".join(_pieces(one))) for one in arrays if one is not None]


def _pieces(array: NDArray[np.int32]) -> Iterator[bytes]:
    for first in range(0, len(array), _PIECE):
        piece = orjson.dumps(array[first : first + _PIECE], option=orjson.OPT_SERIALIZE_NUMPY)
        yield piece[1:-1]


def _model_name(fields: Fields) -> str:
    name = fields.text("model")
    if not name.strip():
        raise NotFoundError("model '' not found")
    return name


def _lists(value: object) -> list[list[Any]]:
    """Return one list of ids, or several, as several."""
    lists = value if isinstance(value, list) else None
    if lists and not isinstance(lists[0], list):
        lists = [lists]
    if lists is None or not all(isinstance(one, list) for one in lists):
        raise _no_ids()
    return lists


def _no_ids() -> InvalidRequestError:
    return InvalidRequestError(
        "field `tokens` must be a list of token ids, or of such lists", field="tokens"
    )


def _are_ids(values: list[object]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) for value in values)
