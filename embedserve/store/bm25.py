"""BM25 over arrays: k1 and b of Robertson and Zaragoza 2009, the weight of a term as Lucene has it.

score(chunk) = sum over terms of idf * (k1 + 1) * times / (times + k1 * (1 - b + b * length / mean))
idf = ln(1 + (chunks - chunks with the term + .5) / (chunks with the term + .5))
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedserve.store.segment_reader import Matches
from embedserve.types import ScoredIds

K1 = 1.2
B = 0.75


@dataclass(frozen=True)
class Part:
    """A segment's share of what is scored."""

    ids: NDArray[np.int64]
    lengths: NDArray[np.float32]
    gone: NDArray[np.bool_] | None
    matches: Sequence[Matches]
    """Of those terms of the query that stand in it."""


def best(found: ScoredIds, count: int) -> ScoredIds:
    """Return the best `count`, best first; the lower id first where scores are equal."""
    if len(found) > count > 0:
        scores = found.scores
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        found = found.where(scores >= least)
    return found.best_first()[:count]


def rank(parts: Sequence[Part], terms: int, *, k1: float = K1, b: float = B) -> ScoredIds:
    """Score every chunk that holds one of so many terms; they come in any order."""
    chunks, total = 0, 0.0
    for part in parts:
        lengths = part.lengths if part.gone is None else part.lengths[~part.gone]
        chunks += len(lengths)
        total += float(lengths.sum(dtype=np.float64))
    holding = np.zeros(terms)
    for part in parts:
        for match in part.matches:
            holding[match.term] += _live(part, match)
    weights = (k1 + 1) * np.log1p((chunks - holding + 0.5) / (holding + 0.5))
    base, slope = k1 * (1 - b), k1 * b * chunks / max(total, 1)
    ids, scores = [np.empty(0, np.int64)], [np.empty(0)]
    for part in parts:
        if part.matches:
            of_part = _scores(part, weights, base, slope)
            found = np.flatnonzero(of_part > 0)  # of booleans: several times as fast
            ids.append(part.ids[found])
            scores.append(of_part[found])
    return ScoredIds(np.concatenate(ids), np.concatenate(scores))


def _live(part: Part, match: Matches) -> int:
    gone = 0 if part.gone is None else int(np.count_nonzero(part.gone[match.places]))
    return len(match.places) - gone


def _scores(
    part: Part, weights: NDArray[np.float64], base: float, slope: float
) -> NDArray[np.float64]:
    """Return the score of each place: (chunks,)."""
    places = np.concatenate([match.places for match in part.matches]).astype(np.intp)
    times = np.concatenate([match.times for match in part.matches]).astype(np.float32)
    weight = np.repeat(
        weights[[match.term for match in part.matches]], [len(m.places) for m in part.matches]
    )
    norms = (base + slope * part.lengths)[places]
    gains = weight * (times / (times + norms))
    scores = np.bincount(places, gains, minlength=len(part.ids)).astype(np.float64, copy=False)
    if part.gone is not None:
        scores[part.gone] = 0
    return scores
