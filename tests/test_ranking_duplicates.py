"""Near-duplicates, and variety."""

import random

import numpy as np
import pytest

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
    assert sum(copies == [n + 1000] for n, copies in found.items()) >= 199


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
