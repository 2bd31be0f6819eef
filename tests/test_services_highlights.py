"""What is marked in a hit: words as the full text knows them, and the best sentences."""

import pytest

from embedserve.ingest.sentences import MOST_CHARS, sentence_spans
from embedserve.services.highlights import Highlighter
from embedserve.services.search_request import Highlights, Hit, Scores
from embedserve.store.words import words_of
from embedserve.types import LineSpan, StoredChunk


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


def chunk(id_: int, text: str, start: int, line: int = 1) -> StoredChunk:
    lines = LineSpan(line, line + text.count("\n"))
    place = (start, start + len(text), None, (), lines)
    return StoredChunk(id_, text, *place, ordinal=id_, document_id=1, path="/a", title="")


def marked(hit_text: str, *queries: str, chunks: tuple[StoredChunk, ...] = ()) -> Highlights:
    parts = chunks or (chunk(1, hit_text, 0),)
    bare = Hit(parts[0], hit_text, parts[0].start, parts[-1].end, parts, Scores(0.5), tokens=1)
    highlights = Highlighter(words_of("english"), queries).marked(bare).highlights
    assert highlights is not None
    return highlights


@pytest.mark.parametrize(
    ("text", "query", "words", "terms"),
    [
        ("Ports are changed by --port.", "How to change the port?", "Ports changed port",
         ("change", "port")),
        ("The CAFÉ of cafe\u0301s", "Café?", "CAFÉ cafe\u0301s", ("Café",)),
        ("call getUserName, then user.name", "getUserName", "getUserName user name",
         ("getUserName",)),
        ("user names are set", "getUserName", "user names", ("User", "Name")),
        ("東京都の天気", "東京都", "東京都", ("東京都",)),
        ("To be or not to be", "the or", "or", ("or",)),
        ("nothing of it", "zebra", "", ()),
        ("\0 🙂 \u202e", "🙂 \0", "", ()),
    ],
)  # fmt: skip
def test_words_are_those_that_the_full_text_takes_to_be_the_same(
    text: str, query: str, words: str, terms: tuple[str, ...]
) -> None:
    found = marked(text, query)
    assert " ".join(text[start:end] for start, end in found.spans) == words
    assert found.terms == terms
    assert bool(found.sentences) == bool(terms)


def test_words_of_every_question_count_and_spans_are_apart() -> None:
    text = "max_tokens limits tokens; the budget of max_tokens."
    found = marked(text, "max_tokens", "Which budget?")
    assert found.terms == ("max_tokens", "budget")
    spans = [place for span in found.spans for place in span]
    assert spans == sorted(set(spans))


def test_the_sentence_with_the_rarer_words_is_best_and_headings_answer_nothing() -> None:
    text = (
        "# Which well freezes in winter\nThe well is old. A well has a chain. In winter the "
        "well freezes. Bread is baked on Fridays."
    )
    [best] = marked(text, "Which well freezes in winter?").sentences
    assert text[best.text_start : best.text_end] == "In winter the well freezes."
    [heading] = marked("# Wells\n\nBread is baked.", "well").sentences
    assert heading.text_end == len("# Wells")
    several = marked("Oak. Oak. Oak. Oak. Elm.", "oak").sentences
    assert [one.text_start for one in several] == [0, 5, 10]


def test_sentences_have_their_place_in_the_document_across_chunks() -> None:
    document = "Oaks stand here.\n\n\n\n\nThe cart of the mill\n\n\nis red and old."
    first, second, third = (
        chunk(1, "Oaks stand here.", 0),
        chunk(2, "The cart of the mill", 21, line=6),
        chunk(3, "is red and old.", 44, line=9),
    )
    text = "Oaks stand here.\n\nThe cart of the mill\n\nis red and old."
    found = marked(text, "red mill", chunks=(first, second, third))
    for one in found.sentences:
        assert document[one.start : one.end] == text[one.text_start : one.text_end]
    assert {document[one.start : one.end] for one in found.sentences} == {
        "The cart of the mill",
        "is red and old.",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? four", ["One.", "Two!", "Three? four"]),
        ("Dr. Smith, cf. Fig. 3. He left.", ["Dr. Smith, cf. Fig. 3.", "He left."]),
        ("## Head\nBody of it.\n\nNext", ["## Head", "Body of it.", "Next"]),
        ("wrapped\nline. End", ["wrapped\nline.", "End"]),
        ("- one\n- two\n1. three", ["- one", "- two", "1. three"]),
        ("一。二。三", ["一。", "二。", "三"]),
        ("  \n ", []),
    ],
)  # fmt: skip
def test_sentences_end_at_signs_and_lines(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_lines_of_a_long_table_stand_alone() -> None:
    rows = [f"| row {number} | value |" for number in range(MOST_CHARS // 10)]
    assert sentences("\n".join(rows)) == rows
    assert sentences("x " * MOST_CHARS) == [("x " * MOST_CHARS).strip()]
