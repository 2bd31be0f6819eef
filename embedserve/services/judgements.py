"""One's own judgements: a CSV that people fill in with any spreadsheet, and what it says.

A row is a passage for a question; `grade` says whether it answers: 0 not, 1 partly, 2 well. What is
left empty is not judged. Passages are told by document and characters, so that a judgement holds
for chunks of any size.
"""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from embedserve.errors import InvalidRequestError, PathNotFoundError
from embedserve.ranking.metrics import DocumentSpan, ndcg, recall, reciprocal_rank
from embedserve.services.evaluation import FoundPassage

COLUMNS = ("question", "grade", "document", "start", "end", "passage")
GRADES = ("0", "1", "2")
CUT = 10


@dataclass(frozen=True)
class Proposal:
    """A row to be judged; without a question, one is to be written that the passage answers."""

    question: str
    grade: str
    place: DocumentSpan
    passage: str


@dataclass(frozen=True)
class JudgedQuestion:
    """A question with what was judged for it."""

    text: str
    grades: dict[DocumentSpan, int] = field(default_factory=dict)


def pool(question: str, found: Sequence[Sequence[FoundPassage]]) -> list[Proposal]:
    """Return what several ways of asking found, each place once, in an order that tells nothing."""
    places = {one.places[0]: one.text for hits in found for one in hits}
    drawn = sorted(places, key=lambda place: _draw(question, place))
    return [Proposal(question, "", place, places[place]) for place in drawn]


def write_proposals(path: Path, proposals: Sequence[Proposal]) -> None:
    """Write the file to be filled in; raise InvalidRequestError where one is there already."""
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for one in proposals:
                place = one.place
                said = " ".join(one.passage.split())
                row = (one.question, one.grade, place.document, place.start, place.end, said)
                writer.writerow(row)
    except FileExistsError as error:
        raise InvalidRequestError(
            f"`{path}` is there already, perhaps with judgements; name another file."
        ) from error
    except OSError as error:
        raise PathNotFoundError(f"`{path}` cannot be written: {error.strerror}.") from error


def read_judgements(path: Path) -> list[JudgedQuestion]:
    """Read the rows that have a question and a grade.

    Raises PathNotFoundError, and InvalidRequestError that names the line at fault.
    """
    found: dict[str, JudgedQuestion] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # spreadsheets add a mark
            rows = csv.DictReader(file)
            missing = [one for one in COLUMNS[:5] if one not in (rows.fieldnames or ())]
            if missing:
                raise InvalidRequestError(
                    f"`{path}` lacks the columns {', '.join(missing)}: it is not a file that "
                    "`embedserve eval make` wrote, or is separated by something else than commas."
                )
            for row in rows:
                _take(found, row, f"`{path}`, line {rows.line_num}")
    except FileNotFoundError as error:
        raise PathNotFoundError(
            f"`{path}` is missing. `embedserve eval make INDEX` writes one to be judged."
        ) from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequestError(f"`{path}` cannot be read as CSV in UTF-8: {error}.") from error
    return list(found.values())


def judged_figures(found: Sequence[FoundPassage], judged: JudgedQuestion) -> dict[str, float]:
    """Judge one ranking by spans: a hit has the grade of the best judged passage that it is.

    A passage counts for the first hit that has it. `judged@10` is the share of the hits that
    somebody judged; others count as no answer.
    """
    left, ranking = dict(judged.grades), list[DocumentSpan]()
    known = 0
    for rank, one in enumerate(found[:CUT]):
        same = [span for span in judged.grades if any(is_same(p, span) for p in one.places)]
        known += bool(same)
        free = [span for span in same if span in left]
        best = max(free, key=lambda span: left[span], default=DocumentSpan("", rank, rank))
        left.pop(best, None)
        ranking.append(best)
    answers = {span for span, grade in judged.grades.items() if grade > 0}
    return {
        "ndcg@10": ndcg(ranking, judged.grades, cut=CUT),
        "recall@10": recall(ranking, answers, cut=CUT),
        "mrr@10": reciprocal_rank(ranking, answers, cut=CUT),
        "judged@10": known / len(found[:CUT]) if found else 1.0,
    }


def is_same(one: DocumentSpan, other: DocumentSpan) -> bool:
    """Tell whether half of the shorter of two spans is in both."""
    shared = min(one.end, other.end) - max(one.start, other.start)
    shorter = min(one.end - one.start, other.end - other.start)
    return one.document == other.document and shorter > 0 and shared >= shorter / 2


def _take(found: dict[str, JudgedQuestion], row: Mapping[str, str | None], place: str) -> None:
    question, grade = (str(row[name] or "").strip() for name in ("question", "grade"))
    if not question or not grade:
        return
    if grade not in GRADES:
        raise InvalidRequestError(f"{place}: the grade `{grade[:40]}` is not 0, 1 or 2.")
    try:
        start, end = int(row["start"] or ""), int(row["end"] or "")
    except ValueError as error:
        raise InvalidRequestError(f"{place}: `start` and `end` must be whole numbers.") from error
    judged = found.setdefault(question, JudgedQuestion(question))
    judged.grades[DocumentSpan(row["document"] or "", start, end)] = int(grade)


def _draw(question: str, place: DocumentSpan) -> str:
    named = f"{question}\0{place.document}\0{place.start}\0{place.end}"
    return hashlib.sha256(named.encode(errors="surrogatepass")).hexdigest()
