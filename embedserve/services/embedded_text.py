"""What is embedded for a chunk: prompt, title and headings, then its text."""

import hashlib
from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

from embedserve.engine.encoder import Encoder
from embedserve.ingest.chunk import prefix
from embedserve.services.reading import prompt_of
from embedserve.services.token_budget import TokenBudget

MOST_FITTED = 4096
"""Prefixes that are remembered: a megabyte."""


class Passage(Protocol):
    """What is needed of a chunk."""

    @property
    def text(self) -> str: ...  # noqa: D102  the attribute of that name

    @property
    def heading(self) -> tuple[str, ...]: ...  # noqa: D102


class EmbeddedTexts:
    """Put prompt, title and headings in front of chunks; safe to share by threads.

    What was made to fit once is not measured again: versions of a document have the same headings.
    """

    def __init__(self, encoder: Encoder, budget: TokenBudget) -> None:
        self._encoder = encoder
        self._budget = budget
        self._prompt = prompt_of(encoder.spec, "document")
        self._fitted: dict[str, str] = {}

    def of(self, title: str, chunks: Sequence[Passage]) -> list[str]:
        """Return what is embedded for chunks of one document, within the model's length."""
        prefixes = {part.heading: prefix(title, part.heading) for part in chunks}
        fitted = self._fit(list(prefixes.values()))
        before = {heading: self._prompt + fitted[text] for heading, text in prefixes.items()}
        return [before[part.heading] + part.text for part in chunks]

    def _fit(self, prefixes: Sequence[str]) -> dict[str, str]:
        """Map each prefix to as much of it as the budget allows."""
        known = self._fitted
        fitted = {text: known[text] for text in prefixes if text in known}
        unknown = [text for text in dict.fromkeys(prefixes) if text not in fitted]
        room = self._budget.prefix
        for text, spans in zip(unknown, self._encoder.offsets(unknown), strict=True):
            fitted[text] = text[: spans[room, 0]] + "\n" if len(spans) > room else text
        if unknown:
            if len(known) >= MOST_FITTED:
                self._fitted = known = {}  # who reads the former one still finds all of it
            known.update(fitted)
        return fitted


def embedded_texts(
    encoder: Encoder, budget: TokenBudget, title: str, chunks: Sequence[Passage]
) -> list[str]:
    """Return what is embedded for chunks of one document; see `EmbeddedTexts`."""
    return EmbeddedTexts(encoder, budget).of(title, chunks)


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
