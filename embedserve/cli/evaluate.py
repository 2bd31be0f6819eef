"""`embedserve eval`: judged sets through the product's own ingestion and search, in one table."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar, get_args

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from embedserve.bootstrap.sources import read_all
from embedserve.cli.client import Client
from embedserve.cli.console import AsJson, errors, output, print_json, print_table
from embedserve.cli.evaluated_index import EvaluatedIndex, prepare, search_of
from embedserve.cli.evaluation_home import evaluation_client, models_of
from embedserve.errors import InvalidRequestError
from embedserve.models.names import RECIPES
from embedserve.services.definitions import DEFAULT_CHUNK_TOKENS
from embedserve.services.evaluation import BUDGET_TOKENS, measure
from embedserve.services.evaluation_report import Row, Run, table_of, write_report
from embedserve.services.evaluation_sets import Half, JudgedSet, read_set
from embedserve.services.search_request import Fusion, Mode, SearchRequest

T = TypeVar("T")

Folders = Annotated[
    list[Path], typer.Argument(help="Folders of judged sets: BEIR's layout, or spans.")
]
Modes = Annotated[str, typer.Option("--mode", help="Modes to compare, separated by commas.")]
Fusions = Annotated[
    str, typer.Option("--fusion", help="Fusions of `hybrid` to compare; else the default one.")
]
ChunkSizes = Annotated[
    str, typer.Option("--chunk-tokens", help="Chunk sizes to compare; an index for each.")
]
Recipes = Annotated[
    str,
    typer.Option("--recipe", help="Recipes to compare, such as int8,fp32; pulled when missing."),
]
ModelName = Annotated[
    str | None, typer.Option("--model", help="[the default model]", show_default=False)
]
Budget = Annotated[
    int, typer.Option("--budget", min=1, help="Tokens that spans are retrieved within.")
]
Parts = Annotated[
    str,
    typer.Option(
        "--half",
        help="Rows for `all` queries, the `first` half, the `second`, or some "
        "of these, separated by commas; ids tell which half a query is of.",
    ),
]
Most = Annotated[
    int | None,
    typer.Option(
        "--queries", min=1, help="So many queries of each set at most.", show_default="all"
    ),
]
Split = Annotated[
    str | None,
    typer.Option("--split", help="Which qrels/*.tsv, such as train.", show_default="test"),
]
Kept = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="Evaluate in this home and keep it, so that a second run embeds "
        "nothing. Else in a temporary one.",
        show_default=False,
    ),
]
Report = Annotated[
    Path | None,
    typer.Option("--report", help="Write a Markdown report, with a plot (SVG) beside it."),
]


@dataclass(frozen=True)
class Plan:
    """What is to be compared."""

    sets: list[JudgedSet]
    ways: list[SearchRequest]
    chunk_tokens: list[int]
    recipes: list[str]
    halves: list[Half]
    budget_tokens: int


def evaluate(  # noqa: PLR0913  # each parameter is an option of the command
    folders: Folders,
    modes: Modes = "hybrid,dense,lexical",
    fusions: Fusions = "",
    chunk_tokens: ChunkSizes = str(DEFAULT_CHUNK_TOKENS),
    recipes: Recipes = "",
    model: ModelName = None,
    budget: Budget = BUDGET_TOKENS,
    halves: Parts = "all",
    queries: Most = None,
    split: Split = None,
    report: Report = None,
    home: Kept = None,
    as_json: AsJson = False,
) -> None:
    """Measure search on judged sets: nDCG, recall, MRR, spans within a budget, latency."""
    read = [read_set(folder, split=split) for folder in folders]
    for one in read:
        for note in one.notes:
            errors.print(f"{one.name}: {note}", style="yellow")
    parts = _known("--half", halves, get_args(Half)) or ["all"]
    plan = Plan(
        sets=[one.drawn(parts, most=queries) for one in read],
        ways=_ways(modes, fusions),
        chunk_tokens=_numbers(chunk_tokens),
        recipes=_known("--recipe", recipes, RECIPES),
        halves=parts,
        budget_tokens=budget,
    )
    run = Run(_measured(plan, model, home, is_quiet=as_json), command=_command())
    if report:
        write_report(run, report)
    if as_json:
        print_json({"results": [row.as_json() for row in run.rows]})
        return
    for table in table_of(run.rows):
        print_table(table.rows, *table.header)
        output.print("")
    if report:
        errors.print(f"wrote {report}")


def _measured(plan: Plan, model: str | None, home: Path | None, *, is_quiet: bool) -> list[Row]:
    wanted = model or read_all({}).settings.default_model
    rows: list[Row] = []
    with evaluation_client(home, wanted) as client:
        names = models_of(client, wanted, plan.recipes)
        for judged in plan.sets:
            for name in names:
                for tokens in plan.chunk_tokens:
                    index = prepare(client, judged, name, tokens, is_quiet=is_quiet)
                    rows += _rows(client, judged, index, plan, is_quiet=is_quiet)
    return rows


def _rows(
    client: Client, judged: JudgedSet, index: EvaluatedIndex, plan: Plan, *, is_quiet: bool
) -> Iterator[Row]:
    search = search_of(client, index.name, index.names)
    for way in plan.ways:
        label = f"{judged.name} {way.mode} {way.fusion or ''}".strip()
        with _progress(label, len(judged.queries), is_quiet=is_quiet) as tell:
            measured = measure(judged, search, way, budget_tokens=plan.budget_tokens, tell=tell)
        for half in plan.halves:
            facts = {
                "model": index.model,
                "recipe": index.recipe,
                "engine": index.engine,
                "chunk_tokens": index.chunk_tokens,
                "half": half,
                "documents": len(judged.documents),
                "chunks": index.chunks,
            }
            places = [n for n, query in enumerate(judged.queries) if query.is_of(half)]
            part = measured.of(places)
            yield Row(judged.name, judged.kind, way.mode or "hybrid", way.fusion, facts, part)


@contextmanager
def _progress(label: str, total: int, *, is_quiet: bool) -> Iterator[Callable[[], None]]:
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, disable=is_quiet, transient=True) as bar:
        task = bar.add_task("queries", total=total)
        yield lambda: bar.advance(task)


def _ways(modes: str, fusions: str) -> list[SearchRequest]:
    chosen: list[SearchRequest] = []
    fused = _known("--fusion", fusions, get_args(Fusion)) or [None]
    for mode in _known("--mode", modes, get_args(Mode)):
        for fusion in fused if mode == "hybrid" else [None]:
            chosen.append(SearchRequest((), mode=mode, fusion=fusion))
    if not chosen:
        raise InvalidRequestError("`--mode` is empty; leave it away for all three.")
    return chosen


def _known(option: str, text: str, known: Sequence[T]) -> list[T]:
    found = [part.strip() for part in text.split(",") if part.strip()]
    by_name = {str(one): one for one in known}
    for one in found:
        if one not in by_name:
            raise InvalidRequestError(f"`{option}`: `{one}` is not one of {', '.join(by_name)}.")
    return [by_name[one] for one in found]


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InvalidRequestError(
            f"`--chunk-tokens`: `{text}` is no list of numbers such as 64,128,256."
        ) from error


def _command() -> str:
    return " ".join(["embedserve", *sys.argv[1:]])
