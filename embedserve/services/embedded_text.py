"""What is embedded for a chunk: prompt, title and headings, then its text."""

import hashlib
from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

from embedserve.engine.encoder import Encoder
from embedserve.ingest.chunk import prefix
from embedserve.services.reading import prompt_of
from embedserve.services.token_budget import TokenBudget


class Passage(Protocol):
    """What is needed of a chunk."""

    @property
    def text(self) -> str: ...  # noqa: D102  the attribute of that name

    @property
    def heading(self) -> tuple[str, ...]: ...  # noqa: D102


def embedded_texts(
    encoder: Encoder, budget: TokenBudget, title: str, chunks: Sequence[Passage]
) -> list[str]:
    """Put prompt, title and headings in front of each chunk, within the model's length."""
    prefixes = list({part.heading: prefix(title, part.heading) for part in chunks}.items())
    offsets = encoder.offsets([text for _, text in prefixes])
    fitted = {
        heading: text[: spans[budget.prefix, 0]] + "\n" if len(spans) > budget.prefix else text
        for (heading, text), spans in zip(prefixes, offsets, strict=True)
    }
    prompt = prompt_of(encoder.spec, "document")
    return [prompt + fitted[part.heading] + part.text for part in chunks]


class TitledPassage(Passage, Protocol):
    """A chunk that says what document it is of."""

    @property
    def title(self) -> str: ...  # noqa: D102


def texts_of(encoder: Encoder, budget: TokenBudget, chunks: Sequence[TitledPassage]) -> list[str]:
    """Return what is embedded for chunks of any documents, in their order."""
    texts: list[str] = []
    for title, group in groupby(chunks, key=lambda chunk: chunk.title):
        texts += embedded_texts(encoder, budget, title, list(group))
    return texts


def text_hash(text: str) -> str:
    """Return what the catalog keeps a text's vector under."""
    return hashlib.sha256(text.encode()).hexdigest()
