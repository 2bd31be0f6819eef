"""Figures beside their targets: judged, as a Markdown table, as JSON."""

import json
from dataclasses import dataclass

from scripts.stress_report.targets import TARGETS, Figures


@dataclass(frozen=True)
class Judged:
    """One figure, and what was asked of it; no target: it is told, not judged."""

    scenario: str
    figure: str
    value: float
    target: str
    is_met: bool


def judge(scenario: str, figures: Figures, *, is_short: bool) -> list[Judged]:
    """Compare figures with the targets of a scenario; one that was not measured is missed."""
    targets = TARGETS[scenario]
    rows = []
    for figure in [*figures, *(name for name in targets if name not in figures)]:
        value, target = figures.get(figure, float("nan")), targets.get(figure)
        if target is None:
            rows.append(Judged(scenario, figure, value, "", is_met=True))
            continue
        words = "at least" if target.is_least else "at most"
        limit = target.limit_of(is_short=is_short)
        is_met = target.is_met(value, is_short=is_short)
        rows.append(Judged(scenario, figure, value, f"{words} {limit:g}", is_met))
    return rows


def missed(rows: list[Judged]) -> list[str]:
    """Return one line for each target that was not met."""
    return [
        f"{row.scenario}: {row.figure}: {_number(row.value)}, {row.target} was asked"
        for row in rows
        if not row.is_met
    ]


def table(rows: list[Judged]) -> str:
    """Return the figures as Markdown."""
    lines = ["| scenario | figure | measured | target | |", "|---|---|---|---|---|"]
    for row in rows:
        verdict = "" if not row.target else "met" if row.is_met else "**MISSED**"
        cells = (row.scenario, row.figure, _number(row.value), row.target, verdict)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def as_json(rows: list[Judged], run: dict[str, object]) -> str:
    """Return the figures and how they came about as JSON; one that is missing is null."""
    figures = [
        {
            "scenario": row.scenario,
            "figure": row.figure,
            "value": None if row.value != row.value else row.value,
            "target": row.target or None,
            "is_met": row.is_met,
        }
        for row in rows
    ]
    return json.dumps({**run, "figures": figures}, indent=2) + "\n"


def _number(value: float) -> str:
    if value != value:
        return "not measured"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"
