"""A question to passages: cosine through the vector index, joined back to the catalog.

A text that several documents hold is one hit, which names the first of them and the others. The
catalog decides what is alive. Changes that the vector index has not applied yet are searched
exactly beside it, and while the index is down everything is: slower, and said in the answer.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field

from embedserve.engine.encoder import Encoder
from embedserve.engine.tokenizer import TokenizedText
from embedserve.errors import InvalidRequestError, VectorStoreError
from embedserve.services.deadline import deadline
from embedserve.services.definitions import IndexDefinition
from embedserve.services.encoders import Encoders
from embedserve.services.index_worker import IndexWorker
from embedserve.services.indexes import IndexService
from embedserve.services.reading import prompt_of
from embedserve.store.catalog import Catalog
from embedserve.store.exact import ExactSearch
from embedserve.store.vector_index import VectorIndex
from embedserve.types import Index, ScoredId, StoredChunk, Vectors

logger = logging.getLogger(__name__)

MAX_K = 1000
MAX_ALSO_IN = 10
"""Other places of a text that a hit names; a licence may stand in thousands of files."""
MANY_WAITING = 1000
"""Chunks that wait for the vector index and are compared one by one beside it, however few others
there are: a few milliseconds. Beyond it everything is, once they are most of the index."""
EXACTLY = "every vector was compared exactly instead."


@dataclass(frozen=True)
class Hit:
    """A text and its cosine similarity to the query, -1..1."""

    chunk: StoredChunk
    """The first live chunk that has it."""
    score: float
    also_in: tuple[StoredChunk, ...] = ()
    """The next ones, `MAX_ALSO_IN` at most, in the order in which they were ingested."""
    places: int = 1
    """How many chunks have it."""


@dataclass(frozen=True)
class SearchResult:
    """Hits, best first, and how they were found."""

    hits: list[Hit]
    model: str
    is_exact: bool
    """Whether every vector was compared, instead of asking the approximate index."""
    warnings: list[str] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)


class SearchService:
    """Answer queries over one index."""

    def __init__(
        self,
        catalog: Catalog,
        indexes: IndexService,
        vector_index: VectorIndex,
        index_worker: IndexWorker,
        encoders: Encoders,
        *,
        timeout_s: float = 0,
    ) -> None:
        """Give queries `timeout_s` at most; 0: as long as they take."""
        self._catalog = catalog
        self._indexes = indexes
        self._vector_index = vector_index
        self._index_worker = index_worker
        self._encoders = encoders
        self._timeout_s = timeout_s
        self._exact = ExactSearch(catalog.chunks)

    async def query(
        self, index_name: str, text: str, k: int | None = None, *, timeout_s: float | None = None
    ) -> SearchResult:
        """Return the `k` texts nearest to `text` (the index's default where k is None).

        Raises IndexNotFoundError, InvalidRequestError, ConflictError, ModelNotFoundError,
        OverloadedError, and DeadlineError after `timeout_s`, or the server's own limit.
        """
        async with deadline(timeout_s, self._timeout_s) as deadline_s:
            return await asyncio.to_thread(self._query, index_name, text, k, deadline_s)

    def _query(
        self, index_name: str, text: str, k: int | None, deadline_s: float | None
    ) -> SearchResult:
        index = self._indexes.find(index_name)
        if k is None:
            k = IndexDefinition.model_validate_json(index.definition).search.k
        _check(text, k)
        started = time.perf_counter()
        encoder = self._encoders.get(index.model)
        warnings = self._indexes.check_vectors(index, encoder)
        [tokenized] = encoder.tokenize([prompt_of(encoder.spec, "query") + text])
        vector = _embedded(encoder, tokenized, deadline_s)
        embedded = time.perf_counter()
        if tokenized.is_truncated:
            warnings.append(f"The query was cut to the model's {encoder.spec.max_tokens} tokens.")
        hits, is_exact = self._nearest(index, vector, k, warnings)
        if self._indexes.find(index_name).artefact != index.artefact:
            return self._query(index_name, text, k, deadline_s)  # it took another model meanwhile
        return SearchResult(
            hits=hits,
            model=index.model,
            is_exact=is_exact,
            warnings=warnings,
            timings_ms={
                "embed": _ms(started, embedded),
                "search": _ms(embedded, time.perf_counter()),
            },
        )

    def _nearest(
        self, index: Index, vector: Vectors, k: int, warnings: list[str]
    ) -> tuple[list[Hit], bool]:
        """Return live hits by the vector index, or exactly where it cannot be relied on."""
        if not self._index_worker.is_ready(index.key):
            if self._catalog.chunks.count(index.id):
                warnings.append(f"The vector index is being loaded or repaired; {EXACTLY}")
            return self._exactly(index, vector, k), True
        waiting = self._catalog.changes.pending_ids(index.id)
        if self._is_mostly_waiting(index, len(waiting)):
            warnings.append(f"Most of the index is still on its way to the vector index; {EXACTLY}")
            return self._exactly(index, vector, k), True
        try:
            # Chunks that were just deleted may still stand in the index: ask for that many more.
            count = k + min(len(waiting), MAX_K)
            found = self._vector_index.search(index.key, vector, count=count)
        except VectorStoreError as error:
            logger.warning("vector index: %s", error)
            self._index_worker.suspect(index.key)
            warnings.append(f"The vector index is not available; {EXACTLY}")
            return self._exactly(index, vector, k), True
        if len(waiting):
            found = _merge(
                found, self._exact.search(index, vector, count=k, among=waiting.tolist())
            )
        hits = self._live(index, found)[:k]
        if len(hits) == k or len(hits) == self._catalog.chunks.count_texts(index.id):
            return hits, False
        # Fewer than there are: deleted chunks crowded the answer, or the index has lost some.
        if not len(waiting):
            self._index_worker.suspect(index.key)
        return self._exactly(index, vector, k), True

    def _is_mostly_waiting(self, index: Index, waiting: int) -> bool:
        return waiting > MANY_WAITING and waiting > self._catalog.chunks.count_texts(index.id) // 2

    def _exactly(self, index: Index, vector: Vectors, k: int) -> list[Hit]:
        return self._live(index, self._exact.search(index, vector, count=k))

    def _live(self, index: Index, scored: list[ScoredId]) -> list[Hit]:
        """Join with the catalog: what is not there is not alive, and a text is one hit."""
        ids = [item.id for item in scored]
        texts = self._catalog.chunks.texts(index.id, ids, most=1 + MAX_ALSO_IN)
        hits: dict[int, Hit] = {}
        for item in scored:
            if item.id in texts:
                first, *others = texts[item.id].chunks
                hit = Hit(first, item.score, tuple(others), texts[item.id].places)
                hits.setdefault(first.id, hit)
        return list(hits.values())


def _embedded(encoder: Encoder, text: TokenizedText, deadline_s: float | None) -> Vectors:
    """Return the vector, (dimensions,) float32; drop the text and raise TimeoutError when late."""
    left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
    pending = encoder.submit([text], lane="small", timeout_s=left_s)
    try:
        vector: Vectors = pending.result(left_s)[0]
    finally:
        pending.cancel()  # no effect on one that is done
    return vector


def _check(text: str, k: int) -> None:
    if not text.strip():
        raise InvalidRequestError("The query is empty: send the question as `query`.")
    if not 1 <= k <= MAX_K:
        raise InvalidRequestError(f"`k` must be between 1 and {MAX_K}; got {k}.")


def _merge(*legs: list[ScoredId]) -> list[ScoredId]:
    best: dict[int, float] = {}
    for leg in legs:
        for item in leg:
            best[item.id] = max(item.score, best.get(item.id, -2.0))
    merged = [ScoredId(id, score) for id, score in best.items()]
    return sorted(merged, key=lambda item: (-item.score, item.id))


def _ms(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)
