"""What stands in front of a chunk when it is embedded."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from embedserve.engine.encoder import Encoder
from embedserve.ingest.chunk import chunk
from embedserve.services.embedded_text import EmbeddedTexts, embedded_texts
from embedserve.services.token_budget import TokenBudget


@dataclass
class Spec:
    document_prompt: str = "passage: "


@dataclass
class WordEncoder:
    """Counts words as tokens; everything else of an encoder is not asked for."""

    spec: Spec = field(default_factory=Spec)

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        found: list[list[Any]] = [
            [one.span() for one in re.finditer(r"\S+", text)] for text in texts
        ]
        return [np.array(spans, dtype=np.int64).reshape(-1, 2) for spans in found]


def embedded(text: str, *, prefix: int) -> list[str]:
    encoder = WordEncoder()
    budget = TokenBudget(prefix=prefix, chunk=12)
    chunks = chunk(text, "markdown", (), encoder.offsets, max_tokens=budget.chunk)
    return embedded_texts(cast(Encoder, encoder), budget, "Book", chunks)


TABLE = "# Prices\n\n| name | value |\n| --- | --- |\n" + "".join(
    f"| row {number} | {number} |\n" for number in range(6)
)


def test_rows_are_embedded_with_title_heading_and_column_names() -> None:
    first, *rest = embedded(TABLE, prefix=50)
    assert first.startswith("passage: Book > Prices\n\n# Prices\n\n| name | value |")
    assert rest
    for one in rest:
        assert one.startswith("passage: Book > Prices\n\n| name | value |\n| row")


def test_what_does_not_fit_in_front_is_cut_off_there() -> None:
    for one in embedded(TABLE, prefix=3)[1:]:
        assert one.startswith("passage: Book > Prices\n\n\n| row")


def test_what_was_made_to_fit_is_not_measured_again() -> None:
    measured: list[str] = []

    class Counting(WordEncoder):
        def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
            measured.extend(texts)
            return super().offsets(texts)

    encoder = Counting()
    chunks = chunk(TABLE, "markdown", (), encoder.offsets, max_tokens=12)
    measured.clear()
    texts = EmbeddedTexts(cast(Encoder, encoder), TokenBudget(prefix=3, chunk=12))
    first = texts.of("Book", chunks)
    assert len(measured) == 2
    assert texts.of("Book", chunks) == first
    assert len(measured) == 2
    assert texts.of("Other", chunks) != first
