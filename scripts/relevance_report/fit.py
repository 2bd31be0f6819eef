"""A logistic model fitted by Newton's method, with no weight below zero, and how well it holds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scripts.relevance_report.evidence import Rows

COLUMNS = ("cosine", "bm25", "overlap")
STEPS = 50
RIDGE = 1e-3
"""Keeps the weights finite where a set can be told apart without an error."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Fitted:
    """Weights by column; a column that would count against a hit is left out."""

    intercept: float
    weights: dict[str, float]

    def relevance(self, rows: Rows) -> Floats:
        """Return the fitted chance of each row, (rows,)."""
        total = np.full(len(rows), self.intercept)
        for column, weight in self.weights.items():
            total += weight * rows[:, COLUMNS.index(column)]
        chances: Floats = 1 / (1 + np.exp(-total))
        return chances


@dataclass(frozen=True)
class Bin:
    """Hits whose relevance is within a tenth."""

    low: float
    hits: int
    expected: float
    """Their mean relevance."""
    answered: float
    """The share of them that does answer."""


def fit(sets: Sequence[Rows], columns: Sequence[str]) -> Fitted:
    """Fit to rows of several sets, each of which counts the same."""
    rows = np.concatenate(list(sets))
    shares = np.concatenate([np.full(len(one), 1000 / len(one)) for one in sets])
    kept = list(columns)
    while True:
        places = [COLUMNS.index(column) for column in kept]
        found = _newton(rows[:, places], rows[:, -1], shares)
        worst = int(np.argmin(found[1:]))
        if found[1 + worst] >= 0:
            weights = zip(kept, found[1:].tolist(), strict=True)
            return Fitted(float(found[0]), dict(weights))
        del kept[worst]


def log_loss(fitted: Fitted, sets: Sequence[Rows]) -> float:
    """Return the mean over the sets; a guess of the base rate is the bar."""
    losses = []
    for rows in sets:
        chance, answers = fitted.relevance(rows), rows[:, -1]
        losses.append(-np.mean(np.log(np.where(answers > 0, chance, 1 - chance))))
    return float(np.mean(losses))


def reliability(fitted: Fitted, sets: Sequence[Rows]) -> list[Bin]:
    """Return what the hits of each tenth of relevance turn out to be."""
    rows = np.concatenate(list(sets))
    chances = fitted.relevance(rows)
    tenths = np.minimum((chances * 10).astype(int), 9)
    found = []
    for tenth in range(10):
        inside = tenths == tenth
        if inside.any():
            expected, answered = chances[inside].mean(), rows[inside, -1].mean()
            found.append(Bin(tenth / 10, int(inside.sum()), float(expected), float(answered)))
    return found


def _newton(features: Floats, answers: Floats, shares: Floats) -> Floats:
    design = np.column_stack([np.ones(len(features)), features])
    found = np.zeros(design.shape[1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-design @ found))
        slope = design.T @ (shares * (chance - answers)) + RIDGE * found
        curve = (design * (shares * chance * (1 - chance))[:, None]).T @ design
        found = found - np.linalg.solve(curve + RIDGE * np.eye(len(found)), slope)
    return found
