"""What our embedding routes take and give beyond Ollama's and OpenAI's fields.

All of it is opt-in: a client that knows none of it gets what it always got.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from embedserve.api.body import Fields
from embedserve.api.replies import Services
from embedserve.errors import InvalidRequestError
from embedserve.services.embedding import Embeddings, EmbedRequest
from embedserve.services.per_item import embed_items
from embedserve.services.reading import TruncateSide
from embedserve.types import InputType, Vectors

INPUT_TYPES = ("query", "document")
TRUNCATE_SIDES = ("left", "right")
ON_ERROR = ("fail", "item")
ENCODINGS = ("float", "base64")
BAD_INPUT = "invalid input type"


@dataclass(frozen=True)
class Extras:
    """What a request asks for with them."""

    input_type: InputType | None
    truncate_side: TruncateSide
    is_base64: bool
    is_by_item: bool
    """Whether a text that fails fails alone."""


def read_extras(fields: Fields) -> Extras:
    """Read the fields; raise InvalidRequestError that names the choices."""
    if not fields.has_any(_NAMES):
        return _NOTHING  # most requests: what costs microseconds is not done for them
    return Extras(
        input_type=cast(InputType | None, fields.choice("input_type", INPUT_TYPES)),
        truncate_side=cast(TruncateSide, fields.choice("truncate_side", TRUNCATE_SIDES) or "right"),
        is_base64=_is_base64(fields.text("encoding_format")),
        is_by_item=fields.choice("on_error", ON_ERROR) == "item",
    )


_NAMES = frozenset({"input_type", "truncate_side", "encoding_format", "on_error"})
_NOTHING = Extras(input_type=None, truncate_side="right", is_base64=False, is_by_item=False)


def _is_base64(encoding: str) -> bool:
    if encoding.lower() not in ("", *ENCODINGS):
        raise InvalidRequestError(
            f"Invalid value for 'encoding_format' = {encoding}. "
            "Supported values: ['float', 'base64'].",
            field="encoding_format",
        )
    return encoding.lower() == "base64"


@dataclass(frozen=True)
class Inputs:
    """The texts of a request, and which of them are none."""

    texts: list[str]
    failures: Mapping[int, str] = field(default_factory=dict)


def inputs_of(value: object, *, is_by_item: bool = False) -> Inputs:
    """Return `input` as a list: a string, a list of strings, or nothing.

    An empty string alone means no text (Ollama's way to load a model); inside a list it is one.
    """
    if value is None or value == "":
        return Inputs([])
    if isinstance(value, str):
        return Inputs([value])
    if not isinstance(value, list):
        raise InvalidRequestError(BAD_INPUT, field="input")
    wrong = [i for i, item in enumerate(value) if not isinstance(item, str)]
    if not wrong:
        return Inputs(value)
    if not is_by_item:
        raise InvalidRequestError(BAD_INPUT, field="input")
    texts = [item if isinstance(item, str) else "" for item in value]
    return Inputs(texts, dict.fromkeys(wrong, BAD_INPUT))


def read_inputs(services: Services, model: str, value: object, extras: Extras) -> Inputs:
    """Return `input` as `inputs_of` does; an invalid name is refused first, as Ollama does."""
    try:
        return inputs_of(value, is_by_item=extras.is_by_item)
    except InvalidRequestError:
        services.models.display(model)
        raise


@dataclass(frozen=True)
class Embedded:
    """What a dialect puts into its shape."""

    result: Embeddings
    rows: "Vectors | Sequence[Vectors | str | None]"
    """One for each text: its vector, the same in base64, or None where it failed."""
    truncated: Sequence[int]
    failures: Mapping[int, str]


async def embed_texts(
    services: Services, wanted: EmbedRequest, extras: Extras, known: Mapping[int, str]
) -> Embedded:
    """Carry out a request as its extra fields ask for it."""
    if not extras.is_by_item:
        result = await services.embedding.embed(wanted)
        rows = packed(result.vectors) if extras.is_base64 else result.vectors
        return Embedded(result, rows, result.truncated, {})
    items = await embed_items(services.embedding, wanted, known)
    result = items.embeddings
    found: list[Vectors | str | None] = [None] * len(wanted.texts)
    given = packed(result.vectors) if extras.is_base64 else result.vectors
    for position, row in zip(items.positions, given, strict=True):
        found[position] = row
    truncated = [items.positions[i] for i in result.truncated]
    return Embedded(result, found, truncated, items.failures)


def packed(vectors: Vectors) -> list[str]:
    """Return each row in base64: little-endian float32, as the official clients decode it."""
    rows = vectors.astype(np.dtype("<f4"), copy=False)
    return [base64.b64encode(row.tobytes()).decode("ascii") for row in rows]


def errors_of(failures: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return what a reply says of the texts that failed."""
    return [{"index": position, "error": message} for position, message in failures.items()]
