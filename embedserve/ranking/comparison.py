"""Whether one setting is better than another on the same queries, or may be so by chance.

Each query is asked in both ways, so differences are paired; small sets mislead without this.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DRAWS = 10_000
"""Of each method: p is exact to about .004, and no smaller than 1 / 10,001."""
LEVEL = 0.05

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """The mean difference over queries, and how far chance alone could make it."""

    queries: int
    difference: float
    low: float
    """Of the 95 % confidence interval, by bootstrap over the queries (Efron 1979)."""
    high: float
    p: float
    """How often signs drawn by chance give a difference as large: the paired randomization test
    (Fisher 1935; Smucker, Allan and Carterette 2007 compare it with others on rankings)."""
    better: int
    """Queries that are better, and `worse`."""
    worse: int

    @property
    def is_told_apart(self) -> bool:
        """Tell whether chance is an unlikely explanation, at the level of 5 %."""
        return self.p < LEVEL


def compare(values: Sequence[float], baseline: Sequence[float], *, seed: int = 7) -> Comparison:
    """Compare a metric's values with those of a baseline, query by query, both in one order.

    The same input gives the same result. Raises ValueError for lists of different lengths.
    """
    pairs = zip(values, baseline, strict=True)
    differences = np.array([one - other for one, other in pairs], dtype=np.float64)
    if not differences.size:
        raise ValueError("nothing to compare")
    random = np.random.default_rng(seed)
    low, high = _interval(differences, random)
    return Comparison(
        queries=len(differences),
        difference=float(differences.mean()),
        low=low,
        high=high,
        p=_chance(differences, random),
        better=int((differences > 0).sum()),
        worse=int((differences < 0).sum()),
    )


def interval(values: Sequence[float], *, seed: int = 7) -> tuple[float, float]:
    """Return the 95 % confidence interval of a mean over queries, by bootstrap."""
    return _interval(np.array(values, dtype=np.float64), np.random.default_rng(seed))


def _interval(values: Floats, random: np.random.Generator) -> tuple[float, float]:
    # Drawn one mean at a time: a matrix of 10,000 draws of 10,000 queries has no room.
    means = [values[random.integers(0, len(values), len(values))].mean() for _ in range(DRAWS)]
    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def _chance(differences: Floats, random: np.random.Generator) -> float:
    observed = abs(differences.sum())
    larger = 0
    for _ in range(DRAWS):
        signs = random.integers(0, 2, len(differences)) * 2 - 1
        # Rounding must not make an equal sum a smaller one.
        larger += bool(abs(signs @ differences) >= observed - 1e-9)
    return (larger + 1) / (DRAWS + 1)
