"""One's own judgements: the file that people fill in, and rankings judged by it."""

import csv
from pathlib import Path

import pytest

from embedserve.errors import InvalidRequestError, PathNotFoundError
from embedserve.ranking.metrics import DocumentSpan
from embedserve.services.evaluation import FoundPassage
from embedserve.services.judgements import (
    COLUMNS,
    JudgedQuestion,
    Proposal,
    judged_figures,
    pool,
    read_judgements,
    write_proposals,
)

A, B, C = (DocumentSpan("guide.md", start, start + 100) for start in (0, 200, 400))


def found(*places: DocumentSpan) -> list[FoundPassage]:
    return [FoundPassage((place,), f"text at {place.start}", 20) for place in places]


def test_a_pool_has_each_place_once_in_an_order_that_tells_nothing() -> None:
    one = pool("Why?", [found(A, B), found(B, C)])
    other = pool("Why?", [found(C, B), found(B, A)])
    assert one == other
    assert {proposal.place for proposal in one} == {A, B, C}
    assert {proposal.grade for proposal in one} == {""}


def test_what_was_filled_in_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "notes.csv"
    rows = [Proposal('Why, and "how"?', "", A, "two\nlines, and more"), Proposal("", "2", B, "x")]
    write_proposals(path, rows)
    assert read_judgements(path) == []
    with pytest.raises(InvalidRequestError, match="is there already"):
        write_proposals(path, rows)
    with path.open(encoding="utf-8", newline="") as file:
        filled = list(csv.reader(file))
    filled[1][1], filled[2][0] = "1", "What is x?"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows(filled)
    assert read_judgements(path) == [
        JudgedQuestion('Why, and "how"?', {A: 1}),
        JudgedQuestion("What is x?", {B: 2}),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("question;grade\n", "lacks the columns"),
        (f"{','.join(COLUMNS)}\nWhy?,good,a.md,0,5,x\n", "line 2: the grade `good`"),
        (f"{','.join(COLUMNS)}\nWhy?,1,a.md,zero,5,x\n", "line 2: `start` and `end`"),
    ],
)
def test_a_file_that_is_malformed_says_where(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "notes.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidRequestError, match=words):
        read_judgements(path)
    with pytest.raises(PathNotFoundError, match="eval make"):
        read_judgements(tmp_path / "absent.csv")


def test_hits_are_judged_by_what_they_share_with_judged_passages() -> None:
    judged = JudgedQuestion("Why?", {A: 2, B: 1, C: 0})
    perfect = judged_figures(found(A, B), judged)
    assert perfect == {"ndcg@10": 1.0, "recall@10": 1.0, "mrr@10": 1.0, "judged@10": 1.0}
    # Another cut of the same text, one that is not judged, and one that holds an answer again.
    shifted, unknown = DocumentSpan("guide.md", 40, 140), DocumentSpan("other.md", 0, 100)
    again = judged_figures(found(unknown, shifted, A), judged)
    assert again["mrr@10"] == 0.5
    assert again["recall@10"] == 0.5
    assert again["judged@10"] == pytest.approx(2 / 3)
    assert 0 < again["ndcg@10"] < 1
    assert judged_figures([], judged)["ndcg@10"] == 0.0
