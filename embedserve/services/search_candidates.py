"""From a question to ranked candidates: each leg is asked, and what they say is fused."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from embedserve.engine.encoder import Encoder
from embedserve.engine.tokenizer import TokenizedText
from embedserve.ranking.fusion import (
    DENSE_WEIGHT,
    Fused,
    FusedHit,
    Leg,
    dense_weight,
    fuse_ranks,
    fuse_scores,
)
from embedserve.services.dense_leg import DenseLeg
from embedserve.services.index_notes import lexical_warnings
from embedserve.services.reading import prompt_of
from embedserve.services.search_request import SearchRequest
from embedserve.store.catalog import Catalog
from embedserve.types import Index, ScoredIds, SqlCondition, StoredText, Vectors

LEG_CANDIDATES = 100
"""Of each leg: more changed no ranking (docs/decisions.md), fewer than 50 did."""
LEAST_READ = 16
"""Candidates whose texts are read together: as many as the usual answer looks at."""
MAX_ALSO_IN = 10
"""Other places of a text that a hit names; a licence may stand in thousands of files."""
MOST_CANDIDATES = 2000
"""Of each leg, for large budgets of tokens."""


@dataclass(frozen=True)
class Candidate:
    """A text that a leg found."""

    text: StoredText
    cosine: float
    """To the query that it is nearest to, whichever leg found it."""
    found: FusedHit
    reranked: float | None = None
    """0..1 by a reranker; None: it was not asked."""

    @property
    def id(self) -> int:
        """Return the id of the first chunk that has the text."""
        return self.text.id

    @property
    def bm25(self) -> float | None:
        """Return the best score of a lexical leg; None: none found it."""
        legs = self.found.legs.items()
        return max((one.score for name, one in legs if name.startswith("lexical")), default=None)


@dataclass
class Candidates:
    """What was found for one call in one index, best first; texts are read as they are needed."""

    index: Index
    read: Callable[[Sequence[FusedHit]], list[Candidate]]
    """Turns hits into candidates, in their order, without those that are no longer alive."""
    at_once: int
    """So many are read together."""
    ranked: list[Candidate] = field(default_factory=list)
    """What was read so far."""
    hits: Sequence[FusedHit] = ()
    """All that was found."""
    looked: int = 0
    """So many of them are read, or are no longer alive."""
    is_exact: bool = False
    warnings: list[str] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)

    def first(self, count: int) -> list[Candidate]:
        """Return the best `count`, or all there are."""
        while self.looked < len(self.hits) and len(self.ranked) < count:
            wanted = max(count - len(self.ranked), self.at_once)
            hits = self.hits[self.looked : self.looked + wanted]
            self.looked += len(hits)
            known = {one.id for one in self.ranked}
            # A text is there once, whatever a vector index of others may hold.
            found = {one.id: one for one in reversed(self.read(hits)) if one.id not in known}
            self.ranked += reversed(found.values())
        return self.ranked[:count]

    def since(self, place: int) -> Iterator[Candidate]:
        """Give all from a place on, best first."""
        while len(self.first(place + 1)) > place:
            yield self.ranked[place]
            place += 1


class CandidateFinder:
    """Ask the legs of one index."""

    def __init__(self, catalog: Catalog, dense: DenseLeg) -> None:
        self._catalog = catalog
        self._dense = dense

    def find(
        self,
        index: Index,
        encoder: Encoder,
        request: SearchRequest,
        among: SqlCondition | None,
        deadline_s: float | None,
    ) -> Candidates:
        """Return candidates, those that deserve it first.

        Raises OverloadedError, TimeoutError.
        """
        warnings: list[str] = []
        timings_ms: dict[str, float] = {}
        watch = Watch(timings_ms)
        looked = _Looked(
            index, max(LEG_CANDIDATES, min(2 * request.wanted, MOST_CANDIDATES)), among
        )
        dense, lexical = [], []
        with self._embedding(encoder, request.queries, deadline_s, warnings) as vectors_of:
            if request.mode != "dense":  # while the engine is at work
                lexical = self._lexical_legs(looked, request.queries)
                watch.lap("lexical")
            vectors = vectors_of()
            watch.lap("embed")
        if request.mode != "lexical":
            dense = [self._dense_leg(looked, vector, request.is_exact) for vector in vectors]
            watch.lap("dense")
        fused = _fused(request, dense, lexical)
        watch.lap("fuse")
        return Candidates(
            index,
            partial(self._read, looked, vectors),
            at_once=max(LEAST_READ, min(request.wanted, len(fused))),
            hits=fused,
            is_exact=looked.is_exact,
            warnings=[*warnings, *dict.fromkeys(looked.warnings)],
            timings_ms=timings_ms,
        )

    def _dense_leg(self, looked: "_Looked", vector: Vectors, is_exact: bool) -> Leg:
        found = self._dense.search(
            looked.index, vector, count=looked.count, among=looked.among, is_exact=is_exact
        )
        looked.is_exact |= found.is_exact
        looked.warnings += found.warnings
        return Leg("dense", found.hits)

    def _lexical_legs(self, looked: "_Looked", queries: Sequence[str]) -> list[Leg]:
        # Asked first: what is indexed meanwhile is found or told of, never neither.
        looked.warnings += lexical_warnings(self._catalog, looked.index)
        return [Leg("lexical", self._lexical(looked, query)) for query in queries]

    def _lexical(self, looked: "_Looked", query: str) -> ScoredIds:
        index, among = looked.index, looked.among
        asked = self._catalog.lexical.query_terms(index, query)
        if asked.is_cut:
            told = f"Only the first {len(asked.terms)} words of the query were looked up."
            looked.warnings.append(told)
        return self._catalog.lexical.search(index, asked.terms, count=looked.count, among=among)

    def _embedding(
        self,
        encoder: Encoder,
        queries: Sequence[str],
        deadline_s: float | None,
        warnings: list[str],
    ) -> AbstractContextManager[Callable[[], Vectors]]:
        """Have the queries embedded; see `embedding`."""
        prompt = prompt_of(encoder.spec, "query")
        tokenized = encoder.tokenize([prompt + query for query in queries])
        if any(text.is_truncated for text in tokenized):
            warnings.append(f"The query was cut to the model's {encoder.spec.max_tokens} tokens.")
        return embedding(encoder, tokenized, deadline_s)

    def _read(
        self, looked: "_Looked", vectors: Vectors, hits: Sequence[FusedHit]
    ) -> list[Candidate]:
        ids = [hit.id for hit in hits]
        texts = self._catalog.chunks.texts(
            looked.index.id, ids, most=1 + MAX_ALSO_IN, among=looked.among
        )
        cosines = self._cosines(looked.index, ids, vectors)
        return [
            Candidate(texts[hit.id], cosines.get(hit.id, 0.0), hit)
            for hit in hits
            if hit.id in texts
        ]

    def _cosines(self, index: Index, ids: Sequence[int], queries: Vectors) -> dict[int, float]:
        """Return the cosine of each text to the query that it is nearest to, whatever found it."""
        stored = self._catalog.chunks.vectors_of(index, ids)
        # Row by row: a product of matrices rounds by how many rows there are.
        cosines = np.einsum("id,qd->iq", stored.vectors, queries)
        best = cosines.max(axis=1, initial=-1.0)
        return dict(zip(stored.ids.tolist(), np.clip(best, -1, 1).tolist(), strict=True))


@contextmanager
def embedding(
    encoder: Encoder, texts: list[TokenizedText], deadline_s: float | None
) -> Iterator[Callable[[], Vectors]]:
    """Give to the engine what is to be embedded, and what waits for it.

    That returns (texts, dimensions) float32, or raises TimeoutError when it is late. Texts that
    nobody waited for are dropped.
    """

    def left_s() -> float | None:
        return None if deadline_s is None else max(0.0, deadline_s - time.monotonic())

    pending = encoder.submit(texts, lane="small", timeout_s=left_s())
    try:
        yield lambda: pending.result(left_s())
    finally:
        pending.cancel()  # no effect on one that is done


def _fused(request: SearchRequest, dense: list[Leg], lexical: list[Leg]) -> Fused:
    """Make one order of the legs; there is one of each kind for each query, or none of a kind."""
    if request.fusion == "sureness" and dense and lexical:
        weights = [dense_weight(one, other) for one, other in zip(dense, lexical, strict=True)]
    else:
        weights = [DENSE_WEIGHT] * len(request.queries)
    dense = [replace(leg, weight=weight) for leg, weight in zip(dense, weights, strict=False)]
    lexical = [
        replace(leg, weight=1 - weight) for leg, weight in zip(lexical, weights, strict=False)
    ]
    legs = [
        replace(leg, name=leg.name if number == 0 else f"{leg.name} {number + 1}")
        for of_kind in (dense, lexical)
        for number, leg in enumerate(of_kind)
    ]
    return fuse_ranks(legs) if request.fusion == "ranks" else fuse_scores(legs)


@dataclass
class _Looked:
    """What one call looks for in an index, and what it has met so far."""

    index: Index
    count: int
    among: SqlCondition | None
    is_exact: bool = False
    warnings: list[str] = field(default_factory=list)


class Watch:
    """Note what each stage took, in milliseconds."""

    def __init__(self, timings_ms: dict[str, float]) -> None:
        self._timings_ms = timings_ms
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Note the time since the last lap, or since this was made."""
        now = time.perf_counter()
        self._timings_ms[stage] = round((now - self._last) * 1000, 3)
        self._last = now
