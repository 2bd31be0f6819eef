"""Near-duplicates, and variety."""

import random

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from embedserve.ranking.duplicates import collapse, diversify

WORDS = [f"word{n}" for n in range(5000)]


def text(seed: int, words: int = 100) -> list[str]:
    return random.Random(seed).choices(WORDS, k=words)


def changed(words: list[str], count: int, seed: int = 0) -> list[str]:
    places = random.Random(seed).sample(range(len(words)), count)
    return [f"new{n}" if n in places else word for n, word in enumerate(words)]


def test_near_duplicates_go_to_the_first_of_them() -> None:
    one, other = text(1), text(2)
    found = collapse(
        [
            ("a", " ".join(one)),
            ("b", " ".join(other)),
            ("a, changed", " ".join(changed(one, 1))),
            ("A", "  ".join(one).upper() + "!"),
            ("b, again", " ".join(other)),
            ("a, half", " ".join(one[:50] + text(3, 50))),
        ]
    )
    assert found == {"a": ["a, changed", "A"], "b": ["b, again"], "a, half": []}


def test_one_word_in_a_hundred_is_always_noticed_as_near() -> None:
    texts = [text(seed) for seed in range(200)]
    pairs = [(n, " ".join(words)) for n, words in enumerate(texts)]
    pairs += [(n + 1000, " ".join(changed(words, 1, n))) for n, words in enumerate(texts)]
    found = collapse(pairs)
    assert all(copies == [n + 1000] for n, copies in found.items())


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.casefold().split()
    return set(zip(words, words[1:], words[2:], strict=False)) or {(text,)}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcde"), min_size=3, max_size=30), max_size=8))
def test_every_text_that_is_near_enough_is_found(drawn: list[list[str]]) -> None:
    texts = [" ".join(words) for words in drawn]
    kept: dict[int, list[int]] = {}
    for number, one in enumerate(texts):
        for other in kept:
            both, either = (
                shingles(one) & shingles(texts[other]),
                shingles(one) | shingles(texts[other]),
            )
            if len(both) >= 0.6 * len(either):
                kept[other].append(number)
                break
        else:
            kept[number] = []
    assert collapse(enumerate(texts), alike=0.6) == kept


@pytest.mark.parametrize("texts", [["", ""], ["?", "?"], ["a b", "a b"], ["\ud800", "\ud800"]])
def test_texts_without_words_are_alike_only_when_equal(texts: list[str]) -> None:
    first, second = texts
    assert collapse([(1, first), (2, second), (3, first + "x")]) == {1: [2], 3: []}


def test_the_same_beginnings_do_not_make_it_slow() -> None:
    header = " ".join(text(0, 60))
    texts = [(n, header + " " + " ".join(text(n + 1, 60))) for n in range(1000)]
    assert len(collapse(texts)) == 1000


def test_variety_takes_the_best_and_then_what_is_unlike_it() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0.6, 0.8]], dtype=np.float32)
    relevance = [0.9, 0.89, 0.5, 0.4]
    assert diversify(vectors, relevance, count=3) == [0, 2, 1]
    assert diversify(vectors, relevance, count=9, trade_off=1.0) == [0, 1, 2, 3]
    assert diversify(vectors[:0], [], count=3) == []
