"""The figures of one run, and the file that keeps them. Measures nothing and writes no prose."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

LENGTHS = ("16", "128", "256", "mixed")
"""Names of `engine.LENGTHS`."""


@dataclass(frozen=True)
class Route:
    """One way to ask for vectors, measured without an engine."""

    name: str
    path: str
    encoding: str = ""
    """OpenAI's `encoding_format`."""
    most_texts: int = 64


ROUTES = (
    Route("`/api/embed`", "/api/embed"),
    Route("`/api/embeddings`", "/api/embeddings", most_texts=1),
    Route("`/v1/embeddings`, float", "/v1/embeddings", "float"),
    Route("`/v1/embeddings`, base64", "/v1/embeddings", "base64"),
)


@dataclass
class Sheet:
    """Values by name, one from each round."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Note a round's value."""
        self.values.setdefault(name, []).append(value)


@dataclass(frozen=True)
class PeerTable:
    """What another harness measured of others, ready to be shown."""

    title: str
    words: str
    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Report:
    """Everything that the page shows."""

    date: str
    cpu: str
    """Its name and its class."""
    engines: str
    model: str
    """Name, recipe and engine."""
    cores: int
    load: str
    """Average number of runnable processes before and after."""
    others: float
    """Share of the machine that other processes used meanwhile."""
    rounds: int
    seconds: float
    """Of each rate."""
    calls: int
    """Of each latency in each round."""
    command: str
    folder: str
    """What was ingested, in words."""
    layers: int
    width: int
    """Of the model's network; see `operations`."""
    values: dict[str, list[float]]
    """By name, a value each round; see `measure`."""
    peers: list[PeerTable] = field(default_factory=list)

    def has(self, *names: str) -> bool:
        """Tell whether all of these were measured."""
        return all(self.values.get(name) for name in names)

    def median(self, name: str) -> float:
        """Return the middle of the rounds."""
        return float(median(self.values[name]))

    def ratio(self, name: str, base: str) -> float:
        """Return the middle of the ratios within each round."""
        pairs = zip(self.values[name], self.values[base], strict=True)
        return float(median(value / other for value, other in pairs))

    def operations(self, tokens: int) -> int:
        """Count the multiplications and additions for each token of a text of that length."""
        return self.layers * (24 * self.width**2 + 4 * tokens * self.width)

    def reached(self, tokens: int) -> float:
        """Return the share of the machine's 8-bit limit that the bare engine reaches."""
        speeds = zip(self.values[f"bare {tokens}"], self.values["roof"], strict=True)
        return float(median(speed * self.operations(tokens) / roof for speed, roof in speeds))

    def write(self, path: Path) -> None:
        """Keep the figures as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read_report(path: Path) -> Report:
    """Read what `Report.write` wrote."""
    if not path.exists():
        raise SystemExit(
            f"`{path}` is not there: nothing was measured yet, so leave `--again` out."
        )
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    content["peers"] = [PeerTable(**table) for table in content["peers"]]
    return Report(**content)


@dataclass(frozen=True)
class Target:
    """What a figure has to be, on two cores and with the default model."""

    words: str
    names: Sequence[str]
    """Of the values that it is made of."""
    value: Callable[[Report], float]
    limit: float
    unit: str
    """`%` for a share, else what stands behind the number."""
    is_most: bool = False
    """Whether the figure may be `limit` at most, not at least."""

    def is_reached(self, report: Report) -> bool:
        """Tell whether it is."""
        value = self.value(report)
        return value <= self.limit if self.is_most else value >= self.limit


def _share(name: str, base: str) -> Callable[[Report], float]:
    return lambda report: 100 * report.ratio(name, base)


def _time(name: str) -> Callable[[Report], float]:
    return lambda report: report.median(name)


def _scheduler_target(length: str) -> Target:
    of = "8 to 250 tokens, mixed" if length == "mixed" else f"{length} tokens"
    names = (f"scheduler {length}", f"bare {length}")
    return Target(f"scheduler, of the bare engine: texts of {of}", names, _share(*names), 95, "%")


def _latency_targets(name: str, words: str, p50_ms: float, p99_ms: float) -> list[Target]:
    return [
        Target(f"{words}, {part}", (at := f"{name} {part}",), _time(at), limit, "ms", is_most=True)
        for part, limit in (("p50", p50_ms), ("p99", p99_ms))
    ]


TARGETS = (
    *(_scheduler_target(length) for length in LENGTHS),
    Target(
        "bulk over HTTP, of the scheduler's own rate",
        ("http bulk", "scheduler texts"),
        _share("http bulk", "scheduler texts"),
        90,
        "%",
    ),
    *_latency_targets("idle", "one query of 16 tokens, idle", 3, 8),
    *_latency_targets("beside bulk", "the same beside saturating bulk", 15, 40),
    Target(
        "ingestion beside 5 queries a second, of ingestion alone",
        ("ingestion beside queries", "ingestion"),
        _share("ingestion beside queries", "ingestion"),
        80,
        "%",
    ),
)
