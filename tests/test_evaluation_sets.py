"""Judged sets are read whole, or it is said what of them was left out."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from embedserve.errors import InvalidRequestError, PathNotFoundError
from embedserve.ranking.metrics import DocumentSpan
from embedserve.services.evaluation_sets import Half, JudgedSet, SetDocument, SetQuery, read_set

Rows = list[dict[str, object]]
CORPUS: Rows = [
    {"_id": "tea", "title": "Tea", "text": "Green tea is brewed at 70 degrees."},
    {"_id": "coffee", "title": "", "text": "Coffee is brewed hot."},
    {"_id": "bare", "title": "A title alone", "text": " "},
]
QUERIES: Rows = [{"_id": "q1", "text": "How hot?"}, {"_id": "q2", "text": "Who?"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\ttea\t2\nq1\tcoffee\t0\nq2\tbare\t1\n"


def write_beir(
    folder: Path,
    *,
    corpus: Rows | None = None,
    queries: Rows | None = None,
    qrels: Mapping[str, str] | None = None,
) -> Path:
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", corpus or CORPUS), ("queries", queries or QUERIES)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    for name, text in ({"test": QRELS} if qrels is None else qrels).items():
        (folder / "qrels" / f"{name}.tsv").write_text(text, encoding="utf-8")
    return folder


def write_spans(folder: Path, questions: Rows, text: str) -> Path:
    (folder / "corpora").mkdir(parents=True)
    (folder / "corpora" / "book.md").write_text(text, encoding="utf-8", newline="")
    lines = "".join(json.dumps(row) + "\n" for row in questions)
    (folder / "questions.jsonl").write_text(lines, encoding="utf-8")
    return folder


def test_a_beir_folder_is_read(tmp_path: Path) -> None:
    found = read_set(write_beir(tmp_path / "drinks"))
    assert (found.name, found.kind, found.notes) == ("drinks", "ranking", ())
    assert found.documents == (
        SetDocument("tea", "Tea", "Green tea is brewed at 70 degrees."),
        SetDocument("coffee", "", "Coffee is brewed hot."),
        SetDocument("bare", "", "A title alone"),
    )
    assert found.queries == (
        SetQuery("q1", "How hot?", gains={"tea": 2, "coffee": 0}),
        SetQuery("q2", "Who?", gains={"bare": 1}),
    )


def test_what_the_set_does_not_have_is_left_out_and_counted(tmp_path: Path) -> None:
    corpus: Rows = [*CORPUS, {"_id": "empty", "title": "", "text": ""}]
    queries: Rows = [*QUERIES, {"_id": "blank", "text": " "}, {"_id": "q3", "text": "Why?"}]
    qrels = QRELS + "q1\tunknown\t1\nnobody\ttea\t1\nblank\ttea\t1\nq3\ttea\t0\n\n"
    found = read_set(
        write_beir(tmp_path / "s", corpus=corpus, queries=queries, qrels={"test": qrels})
    )
    assert [query.id for query in found.queries] == ["q1", "q2"]
    assert "unknown" not in found.queries[0].gains
    assert found.notes == (
        "Left out: 1 documents without text.",
        "Left out: 1 judgements of documents that corpus.jsonl lacks.",
        "Left out: 1 judged queries that queries.jsonl lacks.",
        "Left out: 1 queries without text.",
        "Left out: 1 queries that no document answers.",
    )


def test_a_span_set_is_read_to_the_character(tmp_path: Path) -> None:
    text = "# Tea\r\nGreen tea.\u2028Ümlaut.\n"
    start = text.index("Ümlaut")
    questions: Rows = [
        {
            "id": "a",
            "corpus": "book",
            "question": "Which letter?",
            "references": [
                {"content": "Ümlaut", "start_index": start, "end_index": start + 6},
                {"content": "elsewhere", "start_index": 0, "end_index": 3},
            ],
        },
        {"id": "b", "corpus": "lost", "question": "Where?", "references": []},
        {"id": "c", "corpus": "book", "question": "When?", "references": []},
    ]
    found = read_set(write_spans(tmp_path / "s", questions, text))
    assert found.documents == (SetDocument("book", "", text, "markdown"),)
    assert found.queries == (
        SetQuery("a", "Which letter?", spans=(DocumentSpan("book", start, start + 6),)),
    )
    assert found.notes == (
        "Left out: 1 answers that are not in their text at that place.",
        "Left out: 1 questions about texts that corpora/ lacks.",
        "Left out: 1 questions without an answer.",
    )


def broken(name: str, text: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_text(text, encoding="utf-8")

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (broken("corpus.jsonl", '{"_id": "a", "text": "b"}\n\n{"_id": \n'), r"line 3: it is no"),
        (broken("corpus.jsonl", "[1]\n"), r"line 1: it must be an object"),
        (broken("corpus.jsonl", '{"_id": "a"}\n'), r"line 1: `text` must be a text"),
        (
            broken("corpus.jsonl", '{"_id": "a", "text": "b"}\n' * 2),
            r"line 2: the id `a` is .*twice",
        ),
        (broken("queries.jsonl", '{"_id": "q1", "text": 5}\n'), r"line 1: `text` must be a text"),
        (broken("queries.jsonl", ""), r"no query that can be judged. Left out: 2 judged queries"),
        (broken("qrels/test.tsv", "q1\t0\ttea\t1\n"), r"line 1: it has 4 columns"),
        (broken("qrels/test.tsv", QRELS + "q1\ttea\tgood\n"), r"line 5: the score `good`"),
        (broken("qrels/test.tsv", ""), r"no query that can be judged"),
    ],
)
def test_a_malformed_set_says_where(
    tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    folder = write_beir(tmp_path / "s")
    spoil(folder)
    with pytest.raises(InvalidRequestError, match=words):
        read_set(folder)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(PathNotFoundError, match="is no folder"):
        read_set(tmp_path / "absent")
    with pytest.raises(InvalidRequestError, match="no known layout"):
        read_set(tmp_path)
    with pytest.raises(PathNotFoundError, match=r"qrels/test.tsv"):
        read_set(write_beir(tmp_path / "unjudged", qrels={}))
    (folder := write_beir(tmp_path / "s")).joinpath("queries.jsonl").unlink()
    with pytest.raises(PathNotFoundError, match=r"queries.jsonl` is missing"):
        read_set(folder)
    questions: Rows = [{"corpus": "book", "question": "?", "references": [1]}]
    with pytest.raises(InvalidRequestError, match=r"line 1: `references`"):
        read_set(write_spans(tmp_path / "spans", questions, "text"))


def test_the_split_is_named_where_there_are_several(tmp_path: Path) -> None:
    both = write_beir(tmp_path / "both", qrels={"test": QRELS, "train": "q2\ttea\t1\n"})
    assert len(read_set(both).queries) == 2
    assert [query.id for query in read_set(both, split="train").queries] == ["q2"]
    with pytest.raises(InvalidRequestError, match="has test, train"):
        read_set(both, split="dev")
    neither = write_beir(tmp_path / "neither", qrels={"a": QRELS, "b": QRELS})
    with pytest.raises(InvalidRequestError, match="`--split`"):
        read_set(neither)


def test_halves_share_nothing_and_follow_from_ids() -> None:
    queries = tuple(SetQuery(f"q{number}", "?") for number in range(200))
    whole = JudgedSet("s", "ranking", (), queries)
    turned = JudgedSet("s", "ranking", (), queries[::-1])
    first, second = whole.drawn(["first"]).queries, whole.drawn(["second"]).queries
    assert len(first) + len(second) == 200
    assert not {one.id for one in first} & {one.id for one in second}
    assert 70 < len(first) < 130
    assert {one.id for one in turned.drawn(["first"]).queries} == {one.id for one in first}
    some = whole.drawn(["all"], most=20).queries
    assert {one.id for one in turned.drawn(["all"], most=20).queries} == {one.id for one in some}
    assert len(some) == 20
    alone = JudgedSet("s", "ranking", (), queries[:1])
    empty: Half = "second" if queries[0].is_of("first") else "first"
    with pytest.raises(InvalidRequestError, match=f"no query in its {empty} half"):
        alone.drawn([empty])


def test_the_digest_is_that_of_the_documents(tmp_path: Path) -> None:
    one = read_set(write_beir(tmp_path / "one"))
    same = read_set(write_beir(tmp_path / "same", qrels={"test": "q1\ttea\t1\n"}))
    other = read_set(write_beir(tmp_path / "other", corpus=[*CORPUS[:2], {**CORPUS[2], "_id": "x"}],
                                qrels={"test": "q1\ttea\t1\n"}))  # fmt: skip
    assert one.digest == same.digest != other.digest
