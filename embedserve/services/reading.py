"""How the texts of one request are read: with which prompt, and cut at which end."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from embedserve.engine.encoder import Encoder
from embedserve.engine.tokenizer import TokenizedText
from embedserve.types import EncoderSpec, InputType

TruncateSide = Literal["left", "right"]

Read = Callable[[Sequence[str]], list[TokenizedText]]


def reader(
    encoder: Encoder, *, prompt: str, truncate_side: TruncateSide, max_tokens: int | None
) -> Read:
    """Return what turns texts of one request into tokens, see `Encoder.tokenize`."""
    if truncate_side == "left":
        return partial(encoder.tokenize_ends, prompt=prompt, max_tokens=max_tokens)
    if prompt:
        return partial(_tokenize_prompted, encoder, prompt, max_tokens)
    return partial(encoder.tokenize, max_tokens=max_tokens)


def prompt_of(spec: EncoderSpec, input_type: InputType | None) -> str:
    """Return what goes in front of a text that is a query or a document, or does not say.

    The one place that chooses among a model's prompts: for requests, indexes and searches.
    """
    chosen = input_type or spec.input_type
    if chosen is None:
        return ""
    return spec.query_prompt if chosen == "query" else spec.document_prompt


def _tokenize_prompted(
    encoder: Encoder, prompt: str, max_tokens: int | None, texts: Sequence[str]
) -> list[TokenizedText]:
    return encoder.tokenize([prompt + text for text in texts], max_tokens=max_tokens)
