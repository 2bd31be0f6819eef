"""Sections that come again are cut as they were, and not measured again."""

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embedserve.ingest.blocks import Section
from embedserve.ingest.chunk import Chunker, chunk
from embedserve.ingest.cut_memory import CutMemory, key_of
from embedserve.ingest.spans import Span
from tests.test_ingest_chunk import PIECES, check, real_offsets

PARTS = st.lists(st.lists(PIECES, max_size=12).map("".join), min_size=1, max_size=4)


@settings(deadline=None, max_examples=60)
@given(
    documents=st.lists(PARTS, min_size=2, max_size=3), kind=st.sampled_from(["markdown", "text"])
)
def test_a_shared_memory_changes_no_chunk(documents: list[list[str]], kind: str) -> None:
    shared = Chunker(real_offsets, max_tokens=8)
    # Parts of one document come again in the next, between others.
    every = [part for document in documents for part in document]
    for document in (*documents, every, every[::-1]):
        text = "# Part\n\n".join(document)
        found = shared.chunk(text, kind, ())
        check(text, found, 8)
        assert found == chunk(text, kind, (), real_offsets, max_tokens=8)


def test_only_what_differs_is_measured() -> None:
    measured: list[str] = []

    def offsets(texts: Sequence[str]) -> list[NDArray[np.int64]]:
        measured.extend(texts)
        return real_offsets(texts)

    chunker = Chunker(offsets, max_tokens=20)
    sections = [f"# Part {number}\n\n" + "Some words of it. " * 9 + "\n\n" for number in range(5)]
    first = chunker.chunk("".join(sections), "markdown", ())
    assert measured == sections
    measured.clear()
    sections[2] = sections[2].replace("words", "other words")
    second = chunker.chunk("Before.\n\n" + "".join(sections), "markdown", ())
    assert measured == ["Before.\n\n", sections[2]]
    assert [one.text for one in second if "Part 4" in one.heading] == [
        one.text for one in first if "Part 4" in one.heading
    ]


def test_the_characters_beside_a_section_tell_it_from_its_like() -> None:
    """A cut within a word is measured again, so what joins it decides."""
    part = Section(1, 1, 4)
    assert key_of(" abc ", part) == key_of(" abc ", part)
    assert key_of("-abc ", part) == key_of(" abc ", part)
    assert key_of("xabc ", part) != key_of(" abc ", part)
    assert key_of(" abcx", part) != key_of(" abc ", part)
    assert key_of(" abc ", Section(1, 1, 4, whole=(Span(1, 2),))) != key_of(" abc ", part)
    assert key_of(" abc ", Section(1, 2, 4)) != key_of(" abc ", part)


def test_what_was_not_used_for_longest_is_forgotten() -> None:
    memory = CutMemory(most_numbers=200)  # three sections of a few chunks
    for number in range(3):
        memory.keep(bytes([number + 1]), 100, [Span(100, 105), Span(105, 110)])
    assert memory.get(b"\x01", 7) == [Span(7, 12), Span(12, 17)]
    memory.keep(b"\x04", 0, [Span(0, 1)])
    assert memory.get(b"\x02", 0) is None
    assert memory.get(b"\x01", 0) == [Span(0, 5), Span(5, 10)]
    assert memory.get(None, 0) is None
