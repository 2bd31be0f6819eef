"""`embedserve eval make` and `run`: one's own index, judged by oneself."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, get_args

import typer

from embedserve.cli.client import Client, Home, Json, connect
from embedserve.cli.console import AsJson, errors, output, print_json, print_result, print_table
from embedserve.cli.documents import matching
from embedserve.cli.evaluated_index import passage_of, search_of
from embedserve.errors import InvalidRequestError, PathNotFoundError
from embedserve.ranking.comparison import Comparison, compare
from embedserve.services.evaluation import FoundPassage
from embedserve.services.evaluation_report import sentence
from embedserve.services.judgements import (
    CUT,
    JudgedQuestion,
    Proposal,
    judged_figures,
    pool,
    read_judgements,
    write_proposals,
)
from embedserve.services.search_request import Fusion, Mode, SearchRequest

LEAST_WORDS = 12
"""Of a passage that a question is to be written about."""
FEW = 25
"""Questions below which a result is hardly ever told from chance."""
SETTING = (
    "mode, fusion, diversity, rerank and index, such as `mode=dense` or `fusion=ranks,index=b`"
)

Questions = Annotated[
    Path | None,
    typer.Option(help="Questions, one a line; else passages to write questions about."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE,…", help="Compare with this setting. Repeatable."),
]


def make(  # noqa: PLR0913  # each parameter is an option of the command
    index: Annotated[str, typer.Argument(help="Name of the index.")],
    target: Annotated[
        Path | None, typer.Option("--output", help="File to write. [INDEX.csv]", show_default=False)
    ] = None,
    questions: Questions = None,
    count: Annotated[int, typer.Option(min=1, help="Passages to write questions about.")] = 40,
    depth: Annotated[int, typer.Option(min=1, help="Passages to judge, of each mode.")] = 10,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Write a CSV of questions and passages of an index for you to judge."""
    path = target or Path(f"{index}.csv")
    asked = _lines(questions) if questions else None
    with connect(home) as client:
        if asked is None:
            rows = _drawn(client, index, count)
        else:
            rows = [row for text in asked for row in _pooled(client, index, text, depth)]
    if not rows:
        raise InvalidRequestError(
            f"Index `{index}` has no passage to ask about; ingest documents first."
        )
    write_proposals(path, rows)
    todo = (
        "Write into `question` what the passage answers; rows without one are left out."
        if asked is None
        else "Write into `grade`: 2 it answers, 1 in part, 0 not; what is empty is not judged."
    )
    told = (
        f"wrote {len(rows)} passages to {path}. {todo} "
        f"Then `embedserve eval run {path} -i {index}`."
    )
    print_result({"file": str(path), "passages": len(rows)}, told, as_json=as_json)


def run(
    file: Annotated[Path, typer.Argument(help="The judged CSV.")],
    index: Annotated[str, typer.Option("--index", "-i", help="Name of the index.")] = "default",
    settings: Settings = None,
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Tell whether a setting finds your answers better than the index as it is."""
    judged = [one for one in read_judgements(file) if any(one.grades.values())]
    if not judged:
        raise InvalidRequestError(
            f"`{file}` has no question with an answer: fill in `question` and `grade`."
        )
    ways = [("as it is", index, SearchRequest(())), *(_way(one, index) for one in settings or ())]
    if not settings:
        ways += [(f"mode={mode}", index, SearchRequest((), mode=mode)) for mode in get_args(Mode)]
    with connect(home) as client:
        rows = [_measured(client, judged, *way) for way in ways]
    _report(rows, len(judged), as_json=as_json)


def _report(rows: Sequence["_Row"], questions: int, *, as_json: bool) -> None:
    first = rows[0]
    found = [None, *(compare(row[1]["ndcg@10"], first[1]["ndcg@10"]) for row in rows[1:])]
    if as_json:
        told = [_json(row, one, questions) for row, one in zip(rows, found, strict=True)]
        print_json({"results": told})
        return
    names = list(first[1])
    cells = [
        [label, *(f"{sum(values[name]) / questions:.4f}" for name in names)]
        for label, values in rows
    ]
    print_table(cells, "SETTING", *names)
    for (label, _), one in zip(rows, found, strict=True):
        if one:
            output.print(f"{label}: {sentence(one, 'ndcg@10')}")
    if questions < FEW:
        errors.print(
            f"{questions} questions are few: only large differences can be told from chance. "
            f"Judge {FEW} or more.",
            style="yellow",
        )
    if any(sum(values["judged@10"]) < 0.9 * questions for _, values in rows):
        errors.print(
            "Many hits are not judged and count as no answer (`judged@10`), which harms settings "
            "that were not asked when the file was made.",
            style="yellow",
        )


_Row = tuple[str, dict[str, list[float]]]


def _json(row: _Row, found: Comparison | None, questions: int) -> Json:
    label, values = row
    means = {name: round(sum(one) / questions, 4) for name, one in values.items()}
    told: Json = {"setting": label, "queries": questions, **means}
    if found:
        told["against_first"] = {
            "difference": round(found.difference, 4),
            "low": round(found.low, 4),
            "high": round(found.high, 4),
            "p": round(found.p, 4),
            "better": found.better,
            "worse": found.worse,
            "is_told_apart": found.is_told_apart,
        }
    return told


def _measured(
    client: Client, judged: Sequence[JudgedQuestion], label: str, index: str, way: SearchRequest
) -> _Row:
    search = search_of(client, index)
    rows = []
    for question in judged:
        asked = replace(way, queries=(question.text,), k=CUT, passage_tokens=0)
        rows.append(judged_figures(search(asked), question))
    return label, {name: [row[name] for row in rows] for name in rows[0]}


def _way(text: str, index: str) -> tuple[str, str, SearchRequest]:
    """Read a setting: what differs from a query that says nothing."""
    way = SearchRequest(())
    modes: dict[str, Mode] = {one: one for one in get_args(Mode)}
    fusions: dict[str, Fusion] = {one: one for one in get_args(Fusion)}
    for part in text.split(","):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key == "index" and value:
            index = value
        elif key == "mode" and value in modes:
            way = replace(way, mode=modes[value])
        elif key == "fusion" and value in fusions:
            way = replace(way, fusion=fusions[value])
        elif key == "rerank":
            way = replace(way, rerank=value)
        elif key == "diversity" and _is_share(value):
            way = replace(way, diversity=float(value))
        else:
            raise InvalidRequestError(f"`--set {text}`: `{part}` is none of {SETTING}.")
    return text, index, way


def _is_share(value: str) -> bool:
    try:
        return 0 <= float(value) <= 1
    except ValueError:
        return False


def _pooled(client: Client, index: str, question: str, depth: int) -> list[Proposal]:
    search = search_of(client, index)
    asked = SearchRequest((question,), k=depth, passage_tokens=0)
    return pool(question, [search(replace(asked, mode=mode)) for mode in get_args(Mode)])


def _drawn(client: Client, index: str, count: int) -> list[Proposal]:
    """Draw a passage of each of so many documents; which follows from their paths alone."""
    listed = [one for one in matching(client, index, {}) if one["chunks"]]
    listed.sort(key=lambda one: _digest(one["path"]))
    rows: list[Proposal] = []
    for one in listed:
        if len(rows) == count:
            break
        body = {"query": one["title"] or one["path"], "k": 50, "passage_tokens": 0}
        wanted = {"filter": {"ids": [int(one["id"])]}}
        hits = client.post("indexes", index, "query", body=body | wanted)["hits"]
        found = [passage_of(hit, {}) for hit in hits]
        long = [hit for hit in found if len(hit.text.split()) >= LEAST_WORDS]
        if long:
            best = min(long, key=_order)
            rows.append(Proposal("", "2", best.places[0], best.text))
    return rows


def _order(found: FoundPassage) -> str:
    return _digest(found.text)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PathNotFoundError(f"`{path}` cannot be read: {error}.") from error
    asked = [line.strip() for line in lines if line.strip()]
    if not asked:
        raise InvalidRequestError(f"`{path}` has no question: write one a line.")
    return list(dict.fromkeys(asked))
