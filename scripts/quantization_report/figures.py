"""The figures of one run, and the file that keeps them. Measures nothing and writes no prose."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from embedserve.models.fidelity import FidelityCard, failed_figures
from embedserve.models.recipes import DEFAULTS, RECIPES

LENGTHS = ("16", "128", "256", "mixed")
"""Names of `workbench`'s rounds: tokens of a text."""


@dataclass(frozen=True)
class Row:
    """One way of a recipe on one engine, or a rival, with all that was measured of it."""

    engine: str
    recipe: str
    """Empty for a rival."""
    method: str
    size_bytes: int
    """Of the graph; the tokenizer is the same for all."""
    resident_bytes: int
    """Of the process, after its speed was measured."""
    speeds: dict[str, list[float]]
    """Tokens per second by length, a value each round."""
    is_batch_invariant: bool
    card: FidelityCard | None = None
    """None: random weights, of which there is nothing to keep."""
    ndcg10: float | None = None
    """On SciFact's test queries; None: not measured."""

    def speed(self, length: str) -> float:
        """Return the middle of the rounds, in tokens per second."""
        return median(self.speeds[length])

    @property
    def failures(self) -> list[str]:
        """Say by which figures the row fails its recipe's gate."""
        return failed_figures(self.card, self.recipe) if self.recipe and self.card else []


@dataclass(frozen=True)
class Shape:
    """What decides size and speed of a BERT."""

    name: str
    layers: int
    hidden: int
    vocabulary: int
    positions: int = 512

    @property
    def table_parameters(self) -> int:
        """Count the rows that are looked up: words, positions, kinds."""
        return (self.vocabulary + self.positions + 2) * self.hidden

    @property
    def layer_parameters(self) -> int:
        """Count what every token is multiplied with, biases and gains beside it."""
        return self.layers * (12 * self.hidden**2 + 13 * self.hidden)

    def operations(self, tokens: int) -> int:
        """Count the floating-point operations for each token of a text of that length."""
        return self.layers * (24 * self.hidden**2 + 4 * tokens * self.hidden)


MINILM = Shape("all-minilm", layers=6, hidden=384, vocabulary=30_522)
BASE = Shape("BERT-base", layers=12, hidden=768, vocabulary=30_522)


@dataclass(frozen=True)
class Report:
    """Everything that the page shows."""

    date: str
    cpu: str
    """Its name and its class."""
    engines: str
    cores: int
    load: str
    """Average number of runnable processes before and after."""
    rounds: int
    seconds: float
    """Of each measurement."""
    empty_bytes: int
    """Resident memory of a measuring process without a model."""
    ways: list[Row]
    rivals: list[Row]
    """What others do with optimum's file: text by text, and in padded batches."""
    base: list[Row] = field(default_factory=list)
    """The ways with a model of BERT-base's shape."""
    server_bytes: int | None = None
    """Resident memory of `embedserve serve` with the default; None: not measured."""

    def default(self) -> Row | None:
        """Return what `embedserve pull` would install of what was measured.

        See `services.candidates`, which does not measure what cannot win.
        """
        for group in DEFAULTS["cpu"]:
            first: dict[tuple[str, str], Row] = {}
            for row in self.ways:
                if row.recipe in group and row.card and not row.failures:
                    first.setdefault((row.recipe, row.engine), row)
            if first:
                return max(first.values(), key=lambda row: row.speed("mixed"))
        return None

    def ratio(self, row: Row, length: str) -> float:
        """Return the speed over that of the fastest rival, the middle of the rounds' ratios."""
        best = [
            max(values) for values in zip(*(r.speeds[length] for r in self.rivals), strict=True)
        ]
        ratios = [ours / other for ours, other in zip(row.speeds[length], best, strict=True)]
        return float(median(ratios))

    def write(self, path: Path) -> None:
        """Keep the figures as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read_report(path: Path) -> Report:
    """Read what `Report.write` wrote."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for part in ("ways", "rivals", "base"):
        content[part] = [_row(raw) for raw in content[part]]
    return Report(**content)


def _row(raw: dict[str, Any]) -> Row:
    card = raw.pop("card")
    return Row(**raw, card=FidelityCard(**card) if card else None)


def recipes_on_cpu() -> list[str]:
    """Name the recipes that can be measured here."""
    return [recipe.name for recipe in RECIPES.values() if recipe.device in ("cpu", "any")]
