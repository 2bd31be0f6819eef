"""A question to passages: by vectors and by words, fused, joined back to the catalog.

A text that several documents hold is one hit, which names the first of them and the others. Where a
reranker is asked for, it orders the best candidates anew, as far as its time reaches.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from typing import ParamSpec, TypeVar

from embedserve.engine.encoder import Encoder
from embedserve.errors import DeadlineError, InvalidRequestError, OverloadedError
from embedserve.ranking.duplicates import collapse
from embedserve.ranking.passages import fill_budget
from embedserve.services.deadline import deadline
from embedserve.services.definitions import SearchDefaults
from embedserve.services.dense_leg import DenseLeg
from embedserve.services.encoders import Encoders
from embedserve.services.filters import unknown_fields
from embedserve.services.highlights import Highlighter
from embedserve.services.indexes import IndexService
from embedserve.services.reranking import RerankingService, RerankRequest
from embedserve.services.search_answer import AnswerMaker
from embedserve.services.search_candidates import CandidateFinder, Candidates, Watch
from embedserve.services.search_request import (
    MAX_BUDGET_TOKENS,
    MAX_K,
    MAX_QUERIES,
    ManyResult,
    NamedHit,
    SearchRequest,
    SearchResult,
)
from embedserve.services.viewing import Sight, sight_of, viewer
from embedserve.store.catalog import Catalog
from embedserve.store.filter_sql import condition_of
from embedserve.types import EVERY_DOCUMENT, Index, SqlCondition

P = ParamSpec("P")
T = TypeVar("T")

RERANKED = 50
"""Candidates that a reranker gets."""
RERANK_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class SearchLimits:
    """What all queries share."""

    timeout_s: float = 0
    """That a query takes at most; 0: as long as it does."""
    threads: int = 2
    """Queries that are worked on at once."""


class SearchService:
    """Answer queries over indexes."""

    def __init__(
        self,
        catalog: Catalog,
        indexes: IndexService,
        dense: DenseLeg,
        encoders: Encoders,
        reranking: RerankingService,
        limits: SearchLimits = SearchLimits(),
    ) -> None:
        self._catalog = catalog
        self._indexes = indexes
        self._encoders = encoders
        self._reranking = reranking
        self._timeout_s = limits.timeout_s
        self._threads = ThreadPoolExecutor(limits.threads, thread_name_prefix="search")
        self._finder = CandidateFinder(catalog, dense)
        self._maker = AnswerMaker(catalog)

    async def search(self, index_name: str, request: SearchRequest) -> SearchResult:
        """Return passages that answer, best first.

        Raises IndexNotFoundError, InvalidRequestError, ConflictError, ModelNotFoundError,
        OverloadedError, and DeadlineError when its time is over.
        """
        async with deadline(request.timeout_s, self._timeout_s) as deadline_s:
            if request.rerank is None:  # the usual way: one hop to a thread and back
                return await self._in_turn(request, self._search, index_name, request, deadline_s)
            asked, found = await self._in_turn(request, self._find, index_name, request, deadline_s)
            await self._rerank(found, asked)
            return await self._in_turn(request, self._answer, found, asked)

    async def search_many(self, names: Sequence[str], request: SearchRequest) -> ManyResult:
        """Ask several indexes; the best hits of all by score. Raises as `search` does."""
        asked = [self.search(name, request) for name in names]
        results = dict(zip(names, await asyncio.gather(*asked), strict=True))
        hits = [NamedHit(name, hit) for name, result in results.items() for hit in result.hits]
        hits.sort(key=lambda named: -named.hit.score)
        return ManyResult(results, _as_many(_apart(hits), request))

    def close(self) -> None:
        """Let the threads end; queries that wait for one are given up."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _in_turn(
        self, request: SearchRequest, work: Callable[P, T], *args: P.args, **options: P.kwargs
    ) -> T:
        """Work on a request in one of the threads, for whoever asks here.

        Few of them: most of it is Python, of which one thread runs at a time, and those that wait
        for each other are slower together than one by one. Not so where every vector is compared,
        for seconds: nobody is to wait for that.
        """
        asked = partial(copy_context().run, work, *args, **options)
        threads = None if request.is_exact else self._threads  # None: the loop's own
        return await asyncio.get_running_loop().run_in_executor(threads, asked)

    def _search(
        self, index_name: str, request: SearchRequest, deadline_s: float | None
    ) -> SearchResult:
        asked, found = self._find(index_name, request, deadline_s)
        return self._answer(found, asked)

    def _find(
        self, index_name: str, request: SearchRequest, deadline_s: float | None
    ) -> tuple[SearchRequest, Candidates]:
        while True:
            sight = self._indexes.see(index_name)
            index = sight.index
            asked = with_defaults(request, sight.definition.search)
            check(asked)
            encoder = self._encoders.get(index.model)
            warnings = self._indexes.check_vectors(index, encoder)
            warnings += _told_of(sight) or unknown_fields(self._catalog, index.id, asked.filter)
            asked = replace(asked, filter=sight.among(asked.filter))
            found = self._finder.find(index, encoder, asked, self._among(asked), deadline_s)
            found.warnings[:0] = warnings
            if self._indexes.see(index_name).index.artefact == index.artefact:
                return asked, found
            # It took another model meanwhile.

    def _among(self, request: SearchRequest) -> SqlCondition | None:
        return None if request.filter == EVERY_DOCUMENT else condition_of(request.filter, "d")

    async def _rerank(self, found: Candidates, request: SearchRequest) -> None:
        """Order the best candidates anew; what comes too late is left as it was, and said."""
        watch = Watch(found.timings_ms)
        first = found.first(RERANKED)
        if not first:
            return
        ask = RerankRequest(
            request.queries[0],
            [one.text.chunks[0].text for one in first],
            model=request.rerank or "",
            timeout_s=request.rerank_timeout_s or RERANK_TIMEOUT_S,
        )
        try:
            ranking = await self._reranking.rank(ask)
        except (DeadlineError, OverloadedError):
            found.warnings.append(
                f"The reranker was not done within {ask.timeout_s:g} s; the order is that without "
                "it. Give it more time by `rerank_timeout_ms`."
            )
        else:
            scores = ranking.scores()
            ordered = [replace(first[place], reranked=scores[place]) for place in ranking.order]
            found.ranked[: len(first)] = ordered
        watch.lap("rerank")

    def _answer(self, found: Candidates, request: SearchRequest) -> SearchResult:
        watch = Watch(found.timings_ms)
        encoder: Encoder = self._encoders.get(found.index.model)
        chosen = self._maker.choose(found, request)
        hits = self._maker.hits(chosen, encoder, request)
        if request.highlights and hits:
            words = self._catalog.lexical.words(found.index)
            hits = [*map(Highlighter(words, request.queries).marked, hits)]
        # Spellings are of the words of all documents.
        is_partial = sight_of(found.index).is_partial
        suggestions = {} if hits or is_partial else self._suggested(found.index, request)
        watch.lap("answer")
        return SearchResult(
            hits=hits,
            index=found.index,
            model=found.index.model,
            mode=request.mode or "hybrid",
            is_exact=found.is_exact,
            best_rejected=chosen.best_rejected,
            suggestions=suggestions,
            warnings=found.warnings,
            timings_ms=found.timings_ms,
            dropped=chosen.dropped if request.explains else [],
        )

    def _suggested(self, index: Index, request: SearchRequest) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for query in request.queries:
            found |= self._catalog.lexical.suggest(index, query)
        return found


def _told_of(sight: Sight) -> list[str]:
    """Return what there is to say to a user who may see some of an index; none: sees all."""
    if not sight.is_partial:
        return []
    if viewer().claims:
        return [f"Index `{sight.index.name}` has access rules: what you may see was searched."]
    return [
        f"Index `{sight.index.name}` has access rules, and no user token came with the request: "
        "what everybody may see was searched."
    ]


def _apart(hits: list[NamedHit]) -> list[NamedHit]:
    """Leave out hits that say almost what a better one of another index says, and count them."""
    kept = []
    for place, copies in collapse((place, hit.text) for place, (_, hit) in enumerate(hits)).items():
        name, hit = hits[place]
        alike = sum(1 + hits[copy][1].near_duplicates for copy in copies)
        kept.append(NamedHit(name, replace(hit, near_duplicates=hit.near_duplicates + alike)))
    return kept


def _as_many(hits: list[NamedHit], request: SearchRequest) -> list[NamedHit]:
    """Return as many as one index would have given."""
    if request.max_tokens is None:
        return hits[: request.k or SearchDefaults().k]
    return fill_budget(hits, max_tokens=request.max_tokens)


def with_defaults(request: SearchRequest, defaults: SearchDefaults) -> SearchRequest:
    """Fill in what a request leaves to the definition of the index."""
    k = request.k if request.k is not None or request.max_tokens is not None else defaults.k
    passages = request.passage_tokens
    return replace(
        request,
        k=k,
        passage_tokens=defaults.passage_tokens if passages is None else passages,
        mode=request.mode or defaults.mode,
        fusion=request.fusion or defaults.fusion,
        min_score=defaults.min_score if request.min_score is None else request.min_score,
    )


def check(request: SearchRequest) -> None:
    """Raise InvalidRequestError for what cannot be asked."""
    if not request.queries or not all(query.strip() for query in request.queries):
        raise InvalidRequestError("The query is empty: send the question as `query`.")
    if len(request.queries) > MAX_QUERIES:
        raise InvalidRequestError(f"`queries` holds {MAX_QUERIES} at most; send the best of them.")
    if request.k is not None and request.max_tokens is not None:
        raise InvalidRequestError("Give `k` or `max_tokens`: a number of passages or a budget.")
    for name, value, limit in (
        ("k", request.k, MAX_K),
        ("max_tokens", request.max_tokens, MAX_BUDGET_TOKENS),
    ):
        if value is not None and not 1 <= value <= limit:
            raise InvalidRequestError(f"`{name}` must be between 1 and {limit}; got {value}.")
