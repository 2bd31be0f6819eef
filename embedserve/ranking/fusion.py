"""Several ranked lists into one. What each of them said is kept, for whoever asks why.

A list is what one leg found for one query: hits with scores of which more is better, on a scale of
its own. Equal scores are ordered by id, so that the same lists always give the same order.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp
from operator import attrgetter
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedserve.types import ScoredId

RANK_CONSTANT = 20
"""Of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009 have 60); see docs/decisions.md."""

DENSE_WEIGHT = 0.5
"""Of score fusion, where it is the same for every question; the lexical leg has the rest."""

# Of `dense_weight`, chosen on the first half of four sets with 100 hits a leg: docs/decisions.md.
GAP_TO = 10
_EVEN, _BY_DENSE_GAP, _BY_LEXICAL_GAP = -0.1, 4.5, -2.4

Scaling = Literal["min-max", "z-score"]

# Sorting is stable: by one after the other takes half as long as by both.
_ID, _SCORE = attrgetter("id"), attrgetter("score")


@dataclass(frozen=True)
class Leg:
    """One ranked list."""

    name: str
    hits: Sequence[ScoredId]
    """In any order, no id twice."""
    weight: float = 1.0

    @cached_property
    def ranked(self) -> Sequence[ScoredId]:
        """Return the hits best first, the lower id first where scores are equal."""
        return sorted(sorted(self.hits, key=_ID), key=_SCORE, reverse=True)


class Standing(NamedTuple):
    """Where one leg has a hit."""

    rank: int
    """1 is the best."""
    score: float
    """The leg's own."""


class FusedHit(NamedTuple):
    """A hit of one leg at least."""

    id: int
    score: float
    """Fused; more is better. Of rank fusion below 1, of score fusion 0..1 for min-max."""
    legs: Mapping[str, Standing]
    """By name of the leg, those alone that found it."""


def fuse_ranks(legs: Sequence[Leg], *, constant: int = RANK_CONSTANT) -> list[FusedHit]:
    """Order by the weighted sum of 1 / (constant + rank), best first."""
    gains = (
        [leg.weight / (constant + rank) for rank in range(1, len(leg.hits) + 1)] for leg in legs
    )
    return _fused(legs, gains)


def fuse_scores(legs: Sequence[Leg], *, scaling: Scaling = "min-max") -> list[FusedHit]:
    """Order by the weighted mean of the scores, scaled for each leg over its hits; best first.

    What a leg did not find has the score of its worst hit.
    """
    legs = [leg for leg in legs if leg.hits]
    total = sum(leg.weight for leg in legs) or 1.0
    worst, gains = 0.0, []
    for leg in legs:
        scores = np.array([hit.score for hit in leg.ranked], dtype=np.float64)
        scaled = _SCALINGS[scaling](scores) * (leg.weight / total)
        worst += float(scaled[-1])
        gains.append((scaled - scaled[-1]).tolist())
    return _fused(legs, gains, start=worst)


def fuse_by_sureness(dense: Leg, lexical: Leg) -> list[FusedHit]:
    """Fuse the scores, each leg weighted by how sure it is of this question; best first."""
    weight = dense_weight(dense, lexical)
    return fuse_scores([replace(dense, weight=weight), replace(lexical, weight=1 - weight)])


def dense_weight(dense: Leg, lexical: Leg) -> float:
    """Return the weight of the dense leg for one question, 0..1; the lexical leg has the rest.

    A leg is sure whose best hit stands out: by the share of its score that its tenth lacks. Where
    fewer than ten chunks have a term, the tenth has a BM25 of 0; of cosines the last one counts.
    """
    scores = [hit.score for hit in dense.ranked[:GAP_TO]]
    terms = [hit.score for hit in lexical.ranked[:GAP_TO]]
    terms += [0.0] * (GAP_TO - len(terms))
    return 1 / (1 + exp(-(_EVEN + _BY_DENSE_GAP * _gap(scores) + _BY_LEXICAL_GAP * _gap(terms))))


def _gap(scores: Sequence[float]) -> float:
    """Return the share of the first score that the last one lacks, 0..1."""
    if not scores or scores[0] <= 0:
        return 0.0
    return min((scores[0] - scores[-1]) / scores[0], 1.0)


def _fused(
    legs: Sequence[Leg], gains: Iterable[Sequence[float]], *, start: float = 0.0
) -> list[FusedHit]:
    """Order by the sum of what each leg gives to its hits, best first, from `start` on."""
    sums: dict[int, float] = {}
    standings: dict[int, dict[str, Standing]] = {}
    for leg, given in zip(legs, gains, strict=True):
        name = leg.name
        for rank, ((id_, score), gain) in enumerate(zip(leg.ranked, given, strict=True), start=1):
            sums[id_] = sums.get(id_, start) + gain
            standings.setdefault(id_, {})[name] = Standing(rank, score)
    order = sorted(sorted(sums), key=sums.__getitem__, reverse=True)
    return [FusedHit(id_, sums[id_], standings[id_]) for id_ in order]


def _min_max(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale to 0..1; where all are equal, all are 1."""
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.ones_like(scores)


def _z_score(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale to mean 0 and deviation 1; where all are equal, all are 0."""
    deviation = scores.std()
    return (scores - scores.mean()) / deviation if deviation > 0 else np.zeros_like(scores)


_SCALINGS = {"min-max": _min_max, "z-score": _z_score}
