"""Texts that are made to cost much cost about what their length costs."""

import re
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from embedserve.ingest.blocks import INNER_NAMES, MAX_COLUMNS_CHARS, OUTER_NAMES
from embedserve.ingest.chunk import chunk
from embedserve.ingest.markdown import markdown_sections
from embedserve.ingest.outline import MAX_TITLE_CHARS
from embedserve.ingest.parts import BATCH_CHARS, parts

SIZE = 200_000
TOKEN = re.compile(r"\w{1,12}|[^\w\s]")
ADORNMENTS = "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~"


def offsets(texts: Sequence[str]) -> list[NDArray[np.int64]]:
    return [
        np.array([one.span() for one in TOKEN.finditer(text)], dtype=np.int64).reshape(-1, 2)
        for text in texts
    ]


def filled(piece: str, size: int = SIZE) -> str:
    return (piece * (size // len(piece) + 1))[:size]


NESTED = "".join(" " * depth + f"def f{depth}(a):\n" for depth in range(300))
HOSTILE = {
    "newlines": ("code", "a = 1\n" * 300 + "\n" * SIZE + "  b = 1\n"),
    "header": ("markdown", f"{filled('| name ')}|\n|---|\n" + filled("| a b c |\n", SIZE // 4)),
    "tables": ("markdown", filled("| a | b |\n|---|---|\n| 1 | 2 |\n\n")),
    "nested": ("code", NESTED + filled(" " * 301 + "x = call(a)\n")),
    "spaces": ("code", filled("const a =" + " " * 980 + "x\n")),
    "headings": ("markdown", filled("# a" + " " * 900 + "b\n\nx\n")),
    "fences": ("markdown", filled("```\nx\n```\n~~~\ny\n~~~\n")),
    "words": ("text", "a" * SIZE),
    "titles": (
        "rst",
        "".join(f"{'t' * 100}\n{mark * 100}\n\nx\n\n" for mark in ADORNMENTS)
        + filled("a\n~~~\nx\n", SIZE // 4),
    ),
}


# Each takes less than a second; before they were bounded, the worst took ten.
@pytest.mark.timeout(5)
@pytest.mark.parametrize("name", HOSTILE)
def test_the_work_grows_with_the_text(name: str) -> None:
    kind, text = HOSTILE[name]
    asked: list[int] = []

    def counted(texts: Sequence[str]) -> list[NDArray[np.int64]]:
        asked.append(sum(map(len, texts)))
        return offsets(texts)

    chunks = chunk(text, kind, (), counted)
    assert sum(len(one.text) for one in chunks) <= len(text)
    # Once for all of it; again only for chunks that end inside of a word.
    assert sum(asked) <= 2.5 * len(text)
    assert max(asked) <= 2 * BATCH_CHARS
    for one in chunks:
        assert len(one.heading) <= OUTER_NAMES + INNER_NAMES + 1
        assert all(len(title) <= max(MAX_TITLE_CHARS, MAX_COLUMNS_CHARS) for title in one.heading)


def test_a_deep_path_keeps_its_outermost_and_innermost_names() -> None:
    last = chunk(HOSTILE["nested"][1], "code", (), offsets)[-1]
    names = [f"def f{depth}(a)" for depth in (0, 1, 296, 297, 298, 299)]
    assert list(last.heading) == names


def test_a_part_knows_the_tables_in_it_and_no_others() -> None:
    table = "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 10 + "\n"
    text = "```\n" + "a | b\n" * 12_000 + "```\n\n" + table * 200
    seen = 0
    for part in parts(text, markdown_sections(text)):
        assert all(span.start < part.end and part.start < span.end for span in part.tables)
        seen += len(part.tables)
    assert seen >= 200


def test_what_measures_may_end_the_work() -> None:
    calls = 0

    def stopped(texts: Sequence[str]) -> list[NDArray[np.int64]]:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise InterruptedError
        return offsets(texts)

    with pytest.raises(InterruptedError):
        chunk(filled("some words\n\n", 5 * BATCH_CHARS), "text", (), stopped)
    assert calls == 3
