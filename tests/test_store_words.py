"""Words and terms: what full-text search takes to be the same."""

import numpy as np
import pytest

from embedserve.store.postings import from_block, invert, to_blocks
from embedserve.store.term_finder import TermFinder
from embedserve.store.words import LANGUAGES, MAX_WORD_CHARS, Words, key_of, words_of


def terms(text: str, language: str = "english") -> list[str]:
    return [piece.term for piece in words_of(language).pieces(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("getUserName", ["getusernam", "get", "user", "name"]),
        ("parseHTTPResponse", ["parsehttprespons", "pars", "http", "respons"]),
        ("max_tokens", ["max_token", "max", "token"]),
        ("os.path.join", ["os.path.join", "os", "path", "join"]),
        ("utf8", ["utf8", "utf", "8"]),
        ("3.14", ["3.14", "3", "14"]),
        ("__init__", ["init"]),
        ("end. Next", ["end", "next"]),
        ("Résumés naïve CAFÉ", ["resum", "naiv", "cafe"]),
        ("\ufb01le \uff57\uff49de STRASSE straße", ["file", "wide", "strass", "strass"]),
        ("日本語のtext", ["日本", "本語", "語の", "text"]),
        ("語", ["語"]),
        ("naïve cafe\u0301", ["naiv", "cafe"]),
        ('" AND (x* OR NEAR/2) -y', ["and", "x", "or", "near", "2", "y"]),
        ("\x00 \u202e 🙂 ...", []),
    ],
)  # fmt: skip
def test_words_are_folded_stemmed_and_taken_apart(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "The running of getUserName in os.path.join(x) at 3.14, e.g. __init__.py; Résumés!",
        "plain words only, and UPPER Case Words with utf8 a..b .hidden trailing. x_y_z",
    ],
)
def test_what_is_indexed_is_what_is_asked_for(text: str) -> None:
    read = words_of("english").read([text, text + " é"])
    first = read.keys[: read.lengths[0]].tolist()
    assert first == [key_of(term) for term in terms(text)]
    assert read.keys[read.lengths[0] :].tolist() == [*first, key_of("e")]


@pytest.mark.parametrize(
    "text",
    [
        "a.b a. b .a _a a_b x.a.b a..b aa a-b a.B A, end.",
        "a.b é a. b .a _a é.a a.é aé éa 東京a東京都 a東 a\u0301 b\u0301.a a\u203fb",
    ],
)
def test_places_of_some_terms_are_among_those_of_all(text: str) -> None:
    words = words_of("english")
    every = sorted(words.pieces(text), key=lambda piece: (piece.start, -piece.end))
    distinct = {piece.term for piece in every}
    for asked in ({"a"}, {"b", "a_b"}, {"東京"}, distinct, {"zebra"}):
        assert TermFinder(words, asked).find(text) == [
            piece for piece in every if piece.term in asked
        ]


def test_many_words_with_a_term_are_found_as_few_are() -> None:
    text = " ".join(f"word{number} é.word" for number in range(100)) + " words"
    asked = {"word"}
    every = [piece for piece in words_of("english").pieces(text) if piece.term in asked]
    assert TermFinder(words_of("english"), asked).find(text) == every
    assert len(every) == 201


def test_a_long_question_is_read_as_far_as_its_terms_reach() -> None:
    words = words_of("english")
    question = "what is the " + " ".join(f"q{number}x" for number in range(50))
    assert words.query_terms(question, most=4) == words.query_terms(question)[:4]
    assert words.content_words(question, most=2) == ["q0x", "q1x"]
    assert words.content_words("to be or not to be", most=2) == ["to", "be"]


def test_places_of_terms_are_those_of_the_text() -> None:
    text = "The café's getUserName, 日本語"
    marked = [(text[p.start : p.end], p.term) for p in words_of("english").pieces(text)]
    assert ("getUserName", "getusernam") in marked
    assert ("User", "user") in marked
    assert ("café", "cafe") in marked
    assert ("本語", "本語") in marked


def test_questions_lose_their_stop_words_unless_there_is_nothing_else() -> None:
    words = words_of("english")
    assert words.query_terms("What is the role of the roles?") == ["role"]
    assert words.query_terms("to be or not to be") == ["to", "be", "or", "not"]
    assert words.query_terms("?! *") == []
    assert words_of("german").query_terms("Was für Häuser sind das") == ["haus"]
    assert words_of("none").query_terms("the houses") == ["the", "houses"]


def test_every_language_can_be_read() -> None:
    assert {"none", "english", "german", "russian", "tamil"} <= set(LANGUAGES)
    for language in LANGUAGES:
        assert len(Words(language).read(["one two three"]).keys) == 3


def test_a_word_without_an_end_is_one_word() -> None:
    [term] = terms("x" * 1_000_000)
    assert len(term) == MAX_WORD_CHARS
    assert len(words_of("english").query_terms("aB" * 100_000)) <= 3


def test_a_damaged_block_is_noticed() -> None:
    read = words_of("english").read(["one two two", "two three"])
    postings = invert(read.keys, np.repeat(np.arange(2), read.lengths))
    [(_, block)] = to_blocks(postings)
    assert from_block(block).keys.tolist() == postings.keys.tolist()
    for bad in (block[:-1], b"", block[:20] + bytes([block[20] ^ 1]) + block[21:]):
        with pytest.raises(Exception, match="damaged"):
            from_block(bad)
