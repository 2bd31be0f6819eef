"""A judged set, asked query by query through a product's own search: metrics and latency.

Knows neither HTTP nor the catalog: `Search` is whatever answers a request as users get it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from embedserve.errors import EmbedserveError
from embedserve.ranking.metrics import (
    DocumentSpan,
    ndcg,
    recall,
    reciprocal_rank,
    span_quality,
)
from embedserve.services.evaluation_sets import JudgedSet, SetQuery
from embedserve.services.search_request import MAX_K, SearchRequest

RANKED = 100
"""Documents of a ranking: as far as recall is counted."""
FIRST_K = 50
"""Chunks asked for. The first are what an answer's best come from: up to 50 do not widen the
search beyond that of a usual query."""
NEXT_KS = (200, 400, 800, MAX_K)
"""Asked for after them, until there are enough documents."""
BUDGET_TOKENS = 1000
ASKED_AT_ONCE = 4
"""Requests at once while nothing is timed."""
TIMED, WARMED = 200, 10
"""Queries that are timed, one at a time, and those before them that are not."""


@dataclass(frozen=True)
class FoundPassage:
    """A hit: its places are the one shown, then others with the same text."""

    places: tuple[DocumentSpan, ...]
    text: str
    tokens: int


Search = Callable[[SearchRequest], Sequence[FoundPassage]]


@dataclass(frozen=True)
class Measured:
    """What one way of asking gives on one set."""

    values: Mapping[str, list[float]]
    """By metric, one value for each query, in the set's order."""
    p50_ms: float
    p99_ms: float
    timed: int

    def means(self) -> dict[str, float]:
        """Return the mean of each metric."""
        return {name: float(np.mean(found)) for name, found in self.values.items()}

    def of(self, places: Sequence[int]) -> "Measured":
        """Return the same of the queries at these places; latency is that of all."""
        values = {name: [found[place] for place in places] for name, found in self.values.items()}
        return replace(self, values=values)


def measure(
    judged: JudgedSet,
    search: Search,
    way: SearchRequest,
    *,
    budget_tokens: int = BUDGET_TOKENS,
    tell: Callable[[], None] = lambda: None,
) -> Measured:
    """Ask every query in one way; `way` has no queries, the rest of it is of each request.

    Raises what `search` raises, and EmbedserveError where a hit's span is not its text.
    """
    texts = {document.id: document.text for document in judged.documents}

    def figures(query: SetQuery) -> dict[str, float]:
        asked = replace(way, queries=(query.text,))
        if judged.kind == "spans":
            found = search(replace(asked, max_tokens=budget_tokens))
            _check_spans(found, texts)
            values = span_figures(found, query.spans, budget_tokens)
        else:
            values = ranking_figures(rank_documents(search, asked), query.gains)
        tell()
        return values

    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        rows = list(pool.map(figures, judged.queries))
    values = {name: [row[name] for row in rows] for name in rows[0]}
    times_ms = latencies_ms(judged.queries, search, way)
    p50_ms, p99_ms = (float(np.percentile(times_ms, share)) for share in (50, 99))
    return Measured(values, p50_ms, p99_ms, len(times_ms))


def rank_documents(search: Search, asked: SearchRequest) -> list[str]:
    """Return documents by their best chunk, about a hundred where there are as many.

    The first come from a request that looks as far as usual ones; a deeper one adds the others.
    """
    ranking: dict[str, None] = {}
    for k in (FIRST_K, *NEXT_KS):
        found = search(replace(asked, k=k, passage_tokens=0))
        ranking |= dict.fromkeys(_documents(found))
        if len(found) < k or len(ranking) >= RANKED:
            break
    return list(ranking)[:RANKED]


def ranking_figures(ranking: Sequence[str], gains: Mapping[str, int]) -> dict[str, float]:
    """Judge one ranking of documents."""
    relevant = {document for document, gain in gains.items() if gain > 0}
    return {
        "ndcg@10": ndcg(ranking, gains, cut=10),
        "recall@10": recall(ranking, relevant, cut=10),
        f"recall@{RANKED}": recall(ranking, relevant, cut=RANKED),
        "mrr@10": reciprocal_rank(ranking, relevant, cut=10),
    }


def span_figures(
    found: Sequence[FoundPassage], answers: Sequence[DocumentSpan], budget_tokens: int
) -> dict[str, float]:
    """Judge what filled a budget of tokens, by characters.

    A text that stands in several places counts where it answers, if it does in one of them.
    """
    chosen = [
        next((place for place in one.places if _touches(place, answers)), one.places[0])
        for one in found
    ]
    quality = span_quality(chosen, answers)
    return {
        f"span_recall@{budget_tokens}": quality.recall,
        f"span_precision@{budget_tokens}": quality.precision,
        f"span_iou@{budget_tokens}": quality.iou,
        "tokens": float(sum(one.tokens for one in found)),
    }


def latencies_ms(
    queries: Sequence[SetQuery], search: Search, way: SearchRequest, *, most: int = TIMED
) -> list[float]:
    """Time requests as users send them, one at a time, after some that are not counted."""
    drawn = sorted(queries, key=lambda query: query.draw)[:most]
    times = []
    for number, query in enumerate([*drawn[:WARMED], *drawn]):
        begun = time.perf_counter()
        search(replace(way, queries=(query.text,), highlights=True))  # as the route does
        if number >= min(WARMED, len(drawn)):
            times.append((time.perf_counter() - begun) * 1000)
    return times


def _documents(found: Sequence[FoundPassage]) -> list[str]:
    places = (str(place.document) for one in found for place in one.places)
    return list(dict.fromkeys(places))


def _touches(place: DocumentSpan, answers: Sequence[DocumentSpan]) -> bool:
    return any(
        place.document == one.document and place.start < one.end and one.start < place.end
        for one in answers
    )


def _check_spans(found: Sequence[FoundPassage], texts: Mapping[str, str]) -> None:
    for one in found:
        place = one.places[0]
        if texts[str(place.document)][place.start : place.end] != one.text:
            raise EmbedserveError(
                f"The text of `{place.document}` is not as it was read: it has other line ends or "
                "uncomposed letters, so spans cannot be compared. Write it with `\\n` and in NFC."
            )
