"""How good a ranking is, by judgements. Definitions are those of trec_eval, as BEIR uses them;
those of spans are Smith and Troynikov's ("Evaluating chunking strategies for retrieval", 2024).
"""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log2
from typing import TypeVar

Id = TypeVar("Id", bound=Hashable)


@dataclass(frozen=True)
class SpanQuality:
    """How well retrieved characters cover those that answer, each 0..1."""

    recall: float
    """Share of what answers that was retrieved."""
    precision: float
    """Share of what was retrieved that answers."""
    iou: float
    """What is in both, of what is in either."""


@dataclass(frozen=True)
class DocumentSpan:
    """Characters of one document, end exclusive."""

    document: str | int
    start: int
    end: int


def ndcg(ranking: Sequence[Id], gains: Mapping[Id, int], *, cut: int = 10) -> float:
    """Return the normalized discounted cumulative gain of the first `cut`, 0..1.

    A document at rank r with gain g counts g / log2(r + 1). Without a positive gain it is 0.
    """
    ideal = _discounted(sorted(gains.values(), reverse=True)[:cut])
    return _discounted(gains.get(one, 0) for one in ranking[:cut]) / ideal if ideal > 0 else 0.0


def recall(ranking: Sequence[Id], relevant: Collection[Id], *, cut: int) -> float:
    """Return the share of the relevant ones that is among the first `cut`; 0 where none are."""
    return len(set(ranking[:cut]) & set(relevant)) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[Id], relevant: Collection[Id], *, cut: int = 10) -> float:
    """Return 1 / rank of the first relevant one among the first `cut`, or 0; MRR is its mean."""
    wanted = set(relevant)
    ranks = (rank for rank, one in enumerate(ranking[:cut], start=1) if one in wanted)
    return 1 / next(ranks, float("inf"))


def span_quality(retrieved: Iterable[DocumentSpan], answers: Iterable[DocumentSpan]) -> SpanQuality:
    """Compare what was retrieved with what answers, by characters; what overlaps counts once."""
    found, wanted = _union(retrieved), _union(answers)
    shared = _size(found) + _size(wanted) - _size(_union([*found, *wanted]))
    either = _size(found) + _size(wanted) - shared
    return SpanQuality(
        recall=shared / _size(wanted) if wanted else 0.0,
        precision=shared / _size(found) if found else 0.0,
        iou=shared / either if either else 0.0,
    )


def _discounted(gains: Iterable[int]) -> float:
    return sum(max(gain, 0) / log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def _size(spans: Iterable[DocumentSpan]) -> int:
    return sum(span.end - span.start for span in spans)


def _union(spans: Iterable[DocumentSpan]) -> list[DocumentSpan]:
    """Return the same characters as spans that do not touch, by document and place."""
    joined: list[DocumentSpan] = []
    ordered = (span for span in spans if span.end > span.start)
    for span in sorted(ordered, key=lambda one: (str(one.document), one.start)):
        last = joined[-1] if joined else None
        if last and last.document == span.document and span.start <= last.end:
            joined[-1] = DocumentSpan(last.document, last.start, max(last.end, span.end))
        else:
            joined.append(span)
    return joined
