"""What an evaluation found, as rows of JSON, as tables, and as a Markdown report with a plot."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from embedserve.errors import PathNotFoundError
from embedserve.ranking.comparison import Comparison, compare, interval
from embedserve.services.evaluation import Measured
from embedserve.services.evaluation_plot import Bar, Group, bar_chart
from embedserve.services.evaluation_sets import SetKind

MAIN = {"ranking": "ndcg@10", "spans": "span_recall@"}
"""What rows are compared by: the metric that begins so."""


@dataclass(frozen=True)
class Row:
    """One way of asking on one set."""

    dataset: str
    kind: SetKind
    mode: str
    fusion: str | None
    """None: the index's default."""
    facts: dict[str, Any]
    """Of the index and the run, by their names in JSON."""
    measured: Measured

    @property
    def main(self) -> str:
        """Return the metric that rows are compared by."""
        return next(one for one in self.measured.values if one.startswith(MAIN[self.kind]))

    @property
    def label(self) -> str:
        """Return what tells the row from others of its set."""
        way = self.mode + (f" ({self.fusion})" if self.fusion else "")
        half = "" if self.facts["half"] == "all" else f", {self.facts['half']} half"
        return f"{way}, {self.facts['recipe']}, {self.facts['chunk_tokens']} tokens{half}"

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % confidence interval of that metric, which takes thousands of draws."""
        return interval(self.measured.values[self.main])

    def as_json(self) -> dict[str, Any]:
        """Return the row as `--json` prints it; means over the queries, milliseconds."""
        values = self.measured.values[self.main]
        low, high = self.interval
        return {
            "dataset": self.dataset,
            "mode": self.mode,
            "queries": len(values),
            **{name: round(mean, 4) for name, mean in self.measured.means().items()},
            f"{self.main}_low": round(low, 4),
            f"{self.main}_high": round(high, 4),
            "p50_ms": round(self.measured.p50_ms, 2),
            "p99_ms": round(self.measured.p99_ms, 2),
            "timed_queries": self.measured.timed,
            **({"fusion": self.fusion} if self.fusion else {}),
            **self.facts,
        }


@dataclass(frozen=True)
class Run:
    """All rows, and the command that made them."""

    rows: Sequence[Row]
    command: str


@dataclass(frozen=True)
class Table:
    """Rows of one set, as they are printed."""

    title: str
    header: tuple[str, ...]
    rows: list[list[str]]


def table_of(rows: Sequence[Row]) -> list[Table]:
    """Return a table for each set."""
    tables = []
    for dataset, group in groupby(rows, key=lambda row: row.dataset):
        found = list(group)
        metrics = list(found[0].measured.values)
        header = ("SET", "MODE", "RECIPE", "CHUNK", "HALF", "QUERIES", *metrics, "p50 ms", "p99 ms")
        tables.append(Table(dataset, header, [_cells(row, metrics) for row in found]))
    return tables


def write_report(run: Run, path: Path) -> None:
    """Write the Markdown report, and its plot beside it as `.svg`; raise PathNotFoundError."""
    plot = path.with_suffix(".svg")
    try:
        plot.write_text(bar_chart(_groups(run.rows)), encoding="utf-8")
        path.write_text(_markdown(run, plot.name), encoding="utf-8")
    except OSError as error:
        raise PathNotFoundError(f"`{path}` cannot be written: {error.strerror}.") from error


def sentence(found: Comparison, metric: str) -> str:
    """Say what a comparison comes to, without more than it bears."""
    facts = (
        f"{found.difference:+.4f} {metric} (95 % from {found.low:+.4f} to {found.high:+.4f}, "
        f"p = {found.p:.4f}, {found.better} better and {found.worse} worse of {found.queries})"
    )
    if not found.is_told_apart:
        return f"{facts}: no difference that these queries can tell from chance"
    return f"{facts}: {'better' if found.difference > 0 else 'worse'}"


def _cells(row: Row, metrics: Sequence[str]) -> list[str]:
    means = row.measured.means()
    numbers = [
        f"{means[name]:.0f}" if name == "tokens" else f"{means[name]:.4f}" for name in metrics
    ]
    return [
        row.dataset,
        row.mode + (f"/{row.fusion}" if row.fusion else ""),
        str(row.facts["recipe"]),
        str(row.facts["chunk_tokens"]),
        str(row.facts["half"]),
        str(len(row.measured.values[metrics[0]])),
        *numbers,
        f"{row.measured.p50_ms:.1f}",
        f"{row.measured.p99_ms:.1f}",
    ]


def _markdown(run: Run, plot: str) -> str:
    halves = {row.facts["half"] for row in run.rows}
    parts = [
        "# Evaluation",
        f"`{run.command}`",
        f"Queries: {', '.join(sorted(halves))}. Documents were ingested and queries answered by "
        "the same code as anybody's.",
        f"![Main metric of each row with its 95 % interval]({plot})",
    ]
    for table in table_of(run.rows):
        lines = [table.header, ["---"] * len(table.header), *table.rows]
        parts += [f"## {table.title}", "\n".join(f"| {' | '.join(line)} |" for line in lines)]
        same = [row for row in run.rows if row.dataset == table.title]
        for half in dict.fromkeys(row.facts["half"] for row in same):
            parts += _compared([row for row in same if row.facts["half"] == half])
    return "\n\n".join(parts) + "\n"


def _compared(rows: Sequence[Row]) -> list[str]:
    """Compare every row of a set with the best one, query by query."""
    main = rows[0].main
    best = max(rows, key=lambda row: row.measured.means()[main])
    told = []
    for row in rows:
        if row is not best:
            found = compare(row.measured.values[main], best.measured.values[main])
            told.append(f"- {row.label}: {sentence(found, main)}")
    return [f"Against the best, {best.label}:", "\n".join(told)] if told else []


def _groups(rows: Sequence[Row]) -> list[Group]:
    groups = []
    for dataset, found in groupby(rows, key=lambda row: row.dataset):
        bars, main = [], ""
        for row in found:
            main = row.main
            bars.append(Bar(row.label, row.measured.means()[main], *row.interval))
        groups.append(Group(f"{dataset}: {main}", bars))
    return groups
