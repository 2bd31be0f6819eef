"""Several ranked lists into one. What each of them said is kept, for whoever asks why.

A list is what one leg found for one query: hits with scores of which more is better, on a scale of
its own. Equal scores are ordered by id, so that the same lists always give the same order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp
from typing import Literal, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from embedserve.types import ScoredIds

RANK_CONSTANT = 20
"""Of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009 have 60); see docs/decisions.md."""

DENSE_WEIGHT = 0.5
"""Of score fusion, where it is the same for every question; the lexical leg has the rest."""

# Of `dense_weight`, chosen on the first half of four sets with 100 hits a leg: docs/decisions.md.
GAP_TO = 10
_EVEN, _BY_DENSE_GAP, _BY_LEXICAL_GAP = -0.1, 4.5, -2.4

Scaling = Literal["min-max", "z-score"]


@dataclass(frozen=True)
class Leg:
    """One ranked list."""

    name: str
    hits: ScoredIds
    """In any order, no id twice."""
    weight: float = 1.0

    @cached_property
    def ranked(self) -> ScoredIds:
        """Return the hits best first, the lower id first where scores are equal."""
        return self.hits.best_first()


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


@dataclass(frozen=True, eq=False)
class Fused(Sequence[FusedHit]):
    """The hits of all legs in one order, best first; each is put together when it is looked at."""

    ids: NDArray[np.int64]
    """(hits,)"""
    scores: NDArray[np.float64]
    """(hits,) fused."""
    ranks: Mapping[str, NDArray[np.int64]]
    """By name of the leg: (hits,) the rank in it, 0 where it did not find the hit."""
    own: Mapping[str, NDArray[np.float64]]
    """By name of the leg: (hits,) its own score."""

    def __len__(self) -> int:
        """Count the hits."""
        return len(self.ids)

    @overload
    def __getitem__(self, at: int) -> FusedHit: ...

    @overload
    def __getitem__(self, at: slice) -> list[FusedHit]: ...

    def __getitem__(self, at: int | slice) -> FusedHit | list[FusedHit]:
        """Return one hit, or those of a slice."""
        if isinstance(at, slice):
            return [self[place] for place in range(*at.indices(len(self)))]
        legs = {
            name: Standing(int(ranks[at]), float(self.own[name][at]))
            for name, ranks in self.ranks.items()
            if ranks[at]
        }
        return FusedHit(int(self.ids[at]), float(self.scores[at]), legs)


def fuse_ranks(legs: Sequence[Leg], *, constant: int = RANK_CONSTANT) -> Fused:
    """Order by the weighted sum of 1 / (constant + rank), best first."""
    gains = [leg.weight / (constant + np.arange(1, len(leg.hits) + 1)) for leg in legs]
    return _fused(legs, gains)


def fuse_scores(legs: Sequence[Leg], *, scaling: Scaling = "min-max") -> Fused:
    """Order by the weighted mean of the scores, scaled for each leg over its hits; best first.

    What a leg did not find has the score of its worst hit.
    """
    legs = [leg for leg in legs if leg.hits]
    total = sum(leg.weight for leg in legs) or 1.0
    worst, gains = 0.0, []
    for leg in legs:
        scaled = _SCALINGS[scaling](leg.ranked.scores) * (leg.weight / total)
        worst += float(scaled[-1])
        gains.append(scaled - scaled[-1])
    return _fused(legs, gains, start=worst)


def fuse_by_sureness(dense: Leg, lexical: Leg) -> Fused:
    """Fuse the scores, each leg weighted by how sure it is of this question; best first."""
    weight = dense_weight(dense, lexical)
    return fuse_scores([replace(dense, weight=weight), replace(lexical, weight=1 - weight)])


def dense_weight(dense: Leg, lexical: Leg) -> float:
    """Return the weight of the dense leg for one question, 0..1; the lexical leg has the rest.

    A leg is sure whose best hit stands out: by the share of its score that its tenth lacks. Where
    fewer than ten chunks have a term, the tenth has a BM25 of 0; of cosines the last one counts.
    """
    scores = dense.ranked.scores[:GAP_TO].tolist()
    terms = lexical.ranked.scores[:GAP_TO].tolist()
    terms += [0.0] * (GAP_TO - len(terms))
    return 1 / (1 + exp(-(_EVEN + _BY_DENSE_GAP * _gap(scores) + _BY_LEXICAL_GAP * _gap(terms))))


def _gap(scores: Sequence[float]) -> float:
    """Return the share of the first score that the last one lacks, 0..1."""
    if not scores or scores[0] <= 0:
        return 0.0
    return min((scores[0] - scores[-1]) / scores[0], 1.0)


def _fused(
    legs: Sequence[Leg], gains: Sequence[NDArray[np.float64]], *, start: float = 0.0
) -> Fused:
    """Order by the sum of what each leg gives to its hits, best first, from `start` on."""
    if not legs:
        return Fused(np.empty(0, np.int64), np.empty(0), {}, {})
    every = np.concatenate([leg.ranked.ids for leg in legs])
    ids, places = np.unique(every, return_inverse=True)
    sums = np.bincount(places, np.concatenate(gains)).astype(np.float64) + start
    order = np.lexsort((ids, -sums))
    ranks, own, first = {}, {}, 0
    for leg in legs:
        at = places[first : first + len(leg.hits)]
        first += len(leg.hits)
        rank, score = np.zeros(len(ids), np.int64), np.zeros(len(ids))
        rank[at] = np.arange(1, len(at) + 1)
        score[at] = leg.ranked.scores
        ranks[leg.name], own[leg.name] = rank[order], score[order]
    return Fused(ids[order], sums[order], ranks, own)


def _min_max(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale to 0..1; where all are equal, all are 1."""
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.ones_like(scores)


def _z_score(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scale to mean 0 and deviation 1; where all are equal, all are 0."""
    deviation = scores.std()
    return (scores - scores.mean()) / deviation if deviation > 0 else np.zeros_like(scores)


_SCALINGS = {"min-max": _min_max, "z-score": _z_score}
