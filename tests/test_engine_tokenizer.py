"""The tokenizer's lengths and offsets, on the real model's tokenizer."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from embedserve.engine.tokenizer import HEAD_CHARS_PER_TOKEN, MOST_CHARS, ModelTokenizer
from embedserve.errors import ModelError


@pytest.fixture(scope="module")
def path(model_home: Path) -> Path:
    [found] = model_home.glob("models/**/tokenizer.json")
    return found


@pytest.fixture(scope="module")
def ours(path: Path) -> ModelTokenizer:
    return ModelTokenizer(path)


@pytest.fixture(scope="module")
def reference(path: Path) -> Tokenizer:
    """The library's own truncation at 256, without padding."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return tokenizer


@pytest.fixture(scope="module")
def untruncated(path: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "one word",
        "word " * 300,
        "x" * 50_000,  # one word that is no word: a single unknown token
        " " * 50_000,
        "日本語" * 20_000,
        "a" * 99 + " " + "word " * 10_000,
        "\x00\ud7ff\U0001f600",
    ],
)
def test_ids_are_those_of_the_library(
    ours: ModelTokenizer, reference: Tokenizer, text: str
) -> None:
    expected = reference.encode(text)
    found = ours.tokenize(text, 256)
    assert found.ids.tolist() == expected.ids
    assert found.is_truncated == bool(expected.overflowing)


@given(st.text(max_size=400), st.integers(2, 40))
@settings(max_examples=150, deadline=None)
def test_any_text_keeps_its_special_tokens_and_its_limit(
    ours: ModelTokenizer, text: str, limit: int
) -> None:
    whole = ours.tokenize(text, 10_000)
    cut = ours.tokenize(text, limit)
    assert len(cut.ids) == min(limit, len(whole.ids))
    assert cut.is_truncated == (len(whole.ids) > limit)
    assert (cut.ids[0], cut.ids[-1]) == (101, 102)
    assert cut.ids[1:-1].tolist() == whole.ids[1 : len(cut.ids) - 1].tolist()


@given(st.text(max_size=400), st.integers(2, 40))
@settings(max_examples=100, deadline=None)
def test_any_text_that_loses_its_beginning_keeps_its_end(
    ours: ModelTokenizer, text: str, limit: int
) -> None:
    whole = ours.tokenize(text, 10_000).ids.tolist()[1:-1]
    cut = ours.tokenize_end("", text, limit)
    assert cut.ids.tolist() == [101, *whole[max(len(whole) - limit + 2, 0) :], 102]
    assert cut.is_truncated == (len(whole) > limit - 2)


def test_prompt_stays_where_the_beginning_goes(ours: ModelTokenizer) -> None:
    prompt, text = "search_query: ", "one two three four five six"
    kept = ours.tokenize(prompt + "five six", 100)
    assert ours.tokenize_end(prompt, text, len(kept.ids)).ids.tolist() == kept.ids.tolist()
    # Where not even the prompt fits, its beginning is left.
    assert ours.tokenize_end(prompt, text, 4).ids.tolist() == ours.tokenize(prompt, 4).ids.tolist()
    assert not ours.tokenize_end(prompt, text, 100).is_truncated


@pytest.mark.parametrize("begins", ["", " ", "x", "\n\n "])
@pytest.mark.parametrize("unit", ["word ", "日本 ", "ab" * 60 + " end   ", " \n ", "no-space,"])
def test_end_of_a_long_text_is_that_of_the_whole(
    ours: ModelTokenizer, untruncated: Tokenizer, begins: str, unit: str
) -> None:
    prompt, text = "query", begins + unit * (20_000 // len(unit))
    whole = untruncated.encode(prompt + text, add_special_tokens=False)
    kept = sum(end <= len(prompt) for _, end in whole.offsets)
    for limit in (2, 3, 60):
        found, room = ours.tokenize_end(prompt, text, limit), limit - 2
        first = whole.ids[: min(kept, room)]
        last = whole.ids[max(len(whole.ids) - room + len(first), len(first)) :]
        assert found.ids.tolist() == [101, *first, *last, 102]
        assert found.is_truncated == (len(whole.ids) > room)


def test_the_last_characters_are_read_of_a_text_that_loses_its_beginning(
    ours: ModelTokenizer,
) -> None:
    text = "word " * (MOST_CHARS // 5 + 10) + "end"
    found = ours.tokenize_end("", text, 5)
    assert found.is_truncated
    assert found.ids.tolist() == ours.tokenize("word word end", 5).ids.tolist()


def test_a_long_text_is_not_tokenized_to_its_end(ours: ModelTokenizer) -> None:
    head = "word " * 256 * HEAD_CHARS_PER_TOKEN
    assert np.array_equal(ours.tokenize(head, 256).ids, ours.tokenize(head + "other", 256).ids)


@pytest.mark.parametrize("filler", [" ", "x", "\U0001f3f3\ufe0f\u200d"])
def test_words_far_behind_are_found_by_reading_on(
    ours: ModelTokenizer, reference: Tokenizer, filler: str
) -> None:
    text = filler * 20_000 + " behind it" + " word" * 300 + " end"
    assert ours.tokenize(text, 256).ids.tolist() == reference.encode(text).ids


def test_a_text_without_words_is_not_read_to_its_end(ours: ModelTokenizer) -> None:
    text = "x" * MOST_CHARS
    assert not ours.tokenize(text, 256).is_truncated
    longer = ours.tokenize(text + " word", 256)
    assert longer.is_truncated, "what was not read is said"
    assert longer.ids.tolist() == ours.tokenize(text, 256).ids.tolist()


def test_offsets_lead_back_to_the_text(ours: ModelTokenizer) -> None:
    text = "Café, naïve\n\nprint('x')"
    [offsets] = ours.offsets([text])
    assert [text[start:end] for start, end, _ in offsets[:3]] == ["Café", ",", "naïve"]
    # The third column, of a tokenizer to which spaces are boundaries.
    assert offsets[:, 2].tolist() == ours.tokenize(text, 256).ids[1:-1].tolist()
    [none] = ours.offsets([""])
    assert none.shape == (0, 3)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "tokenizer.json"
    broken.write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        ModelTokenizer(broken)
