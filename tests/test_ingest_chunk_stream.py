"""A text that comes in pieces is cut as it is cut whole."""

import random
import re
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from embedserve.ingest.chunk import Chunker, chunk
from embedserve.ingest.chunk_stream import chunk_stream
from embedserve.ingest.layouts import LAYOUTS
from embedserve.ingest.lines import MAX_LINE_CHARS
from embedserve.ingest.parts import MAX_PART_CHARS
from embedserve.types import Chunk

_TOKEN = re.compile(r"\w+|[^\w\s]")
MAX_TOKENS = 48
LINES = (
    "# One|## Two|### Three|text here is a paragraph with words. And more.|||```|```py|~~~"
    "#| a | b |#|---|---|#| 1 | x y z |#Title|=====|-----|***|def f(x):|    return x|class A:"
    "|  def m(self):|@dec|# comment|#if X|int main(int a) {|}|code::|    indented|+----+"
    "#| rst |#- item|1. item|a,b,c|---|key: v|日本語。文章|\tTab|public void run() {"
)
CHOICES = [line for part in LINES.split("#|") for line in part.split("|")] + [
    "| a | b |", "|---|---|", "| 1 | x y z |", "long " * 60, "x" * 300,
]  # fmt: skip


def offsets(texts: Sequence[str]) -> list[NDArray[np.int64]]:
    found = ([match.span() for match in _TOKEN.finditer(text)] for text in texts)
    return [np.array(spans, dtype=np.int64).reshape(-1, 2) for spans in found]


def streamed(text: str, kind: str, size: int) -> list[Chunk]:
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    cuts = list(chunk_stream(pieces, kind, Chunker(offsets, max_tokens=MAX_TOKENS)))
    ends = [cut.end for cut in cuts]
    assert ends == sorted(ends)
    return [one for cut in cuts for one in cut.chunks]


def whole(text: str, kind: str) -> list[Chunk]:
    return chunk(text, kind, (), offsets, max_tokens=MAX_TOKENS)


@pytest.mark.parametrize("kind", sorted(LAYOUTS))
@pytest.mark.parametrize("seed", range(3))
def test_pieces_of_any_size_give_the_chunks_of_the_whole(kind: str, seed: int) -> None:
    chance = random.Random(seed)
    text = "\n".join(chance.choices(CHOICES, k=chance.choice([40, 4000])))
    for size in (chance.randrange(2000, 9000), len(text) // 3 + 1):
        assert streamed(text, kind, size) == whole(text, kind)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("text", "word " * 30_000),
        ("text", "x" * 100_000),
        ("rows", '{"a": 1, "b": "some words"}\n' * 4_000),
        ("markdown", "# A\n\n| a | b |\n|---|---|\n" + "| 12 | some text |\n" * 5_000),
        ("markdown", "# A\n\n```\n" + "some code here\n" * 5_000 + "```\n\n# B\n\nend"),
        ("markdown", "---\nkey: x\n---\n# A\n\n" + "Some text. " * 8_000 + "\n\n## B\n\nend"),
        ("code", "class A:\n" + "    def f(self):\n        return 1\n\n" * 3_000 + "x = 1\n"),
        ("rst", "A\n=\n\ntext::\n\n" + "    literal\n" * 9_000 + "\nB\n=\n\nend\n"),
        ("text", ""),
        ("markdown", "--"),
        ("markdown", " \n"),
    ],
)
def test_what_a_layout_knows_goes_from_piece_to_piece(kind: str, text: str) -> None:
    assert not text or len(text) < 5 or len(text) > 2 * MAX_PART_CHARS
    assert streamed(text, kind, 20_011) == whole(text, kind)


def test_a_text_of_few_characters_may_come_one_by_one() -> None:
    text = "# A\n\nSome text.\n\nB\n===\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
    for kind in LAYOUTS:
        assert streamed(text, kind, 1) == whole(text, kind)


def test_a_line_without_end_needs_no_more_than_a_piece() -> None:
    text = "A sentence of some words, and then. " * 12_000
    assert len(text) > 4 * MAX_LINE_CHARS
    asked: list[int] = []

    def measured(texts: Sequence[str]) -> list[NDArray[np.int64]]:
        asked.append(sum(map(len, texts)))
        return offsets(texts)

    for kind in LAYOUTS:
        pieces = (text[start : start + 50_000] for start in range(0, len(text), 50_000))
        cuts = chunk_stream(pieces, kind, Chunker(measured, max_tokens=MAX_TOKENS))
        assert [one for cut in cuts for one in cut.chunks] == whole(text, kind)
    assert max(asked) < 50_000 + 2 * MAX_LINE_CHARS + MAX_PART_CHARS


@pytest.mark.parametrize("kind", sorted(LAYOUTS))
def test_what_was_cut_in_a_former_life_is_passed_over(kind: str) -> None:
    text = "\n".join(random.Random(9).choices(CHOICES, k=6000))
    pieces = [text[start : start + 40_000] for start in range(0, len(text), 40_000)]
    chunker = Chunker(offsets, max_tokens=MAX_TOKENS)
    cuts = list(chunk_stream(pieces, kind, chunker))
    assert len(cuts) > 2
    before, after = cuts[:2], cuts[2:]
    done = sum(len(cut.chunks) for cut in before)
    again = chunk_stream(pieces, kind, chunker, skip_chars=before[-1].end, ordinal=done)
    assert [one for cut in again for one in cut.chunks] == [
        one for cut in after for one in cut.chunks
    ]
