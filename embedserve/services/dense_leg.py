"""The nearest vectors, by the approximate index or exactly where that cannot be relied on.

The catalog decides what is alive. Changes that the vector index has not applied yet are searched
exactly beside it, and while the index is down everything is: slower, and said in the answer.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from embedserve.errors import VectorStoreError
from embedserve.services.index_worker import IndexWorker
from embedserve.store.catalog import Catalog
from embedserve.store.exact import ExactSearch
from embedserve.store.rows import NO_HITS
from embedserve.store.vector_index import VectorIndex
from embedserve.types import Index, ScoredIds, SqlCondition, Vectors

logger = logging.getLogger(__name__)

MANY_WAITING = 1000
"""Chunks that wait for the vector index and are compared one by one beside it, however few others
there are: a few milliseconds. Beyond it everything is, once they are most of the index."""
SLOWED_BY = 200
"""Chunks that wait and slow a query down by some milliseconds: the worker is told to hurry."""
MORE_WAITING = 1000
"""That may be deleted and still stand in the index, for which as many more are asked of it."""
FILTERED_TIMES = (4, 16)
"""So many candidates for each that is wanted are asked for where a filter leaves some out: enough
for one that leaves a third, and for one that leaves a tenth. What that does not fill is found
exactly among what meets it."""
FEW_MEETING = 4000
"""Texts that meet a filter, if they are known: no more are compared one by one at once. It takes 19
microseconds for each, and four times as many candidates of the vector index would not do."""
EXACTLY = "every vector was compared exactly instead."


@dataclass(frozen=True)
class Found:
    """What a leg found, best first."""

    hits: ScoredIds
    """By the chunk that stands for each text, of those that may be shown."""
    is_exact: bool = False
    warnings: list[str] = field(default_factory=list)


class DenseLeg:
    """Find texts by cosine."""

    def __init__(
        self, catalog: Catalog, vector_index: VectorIndex, index_worker: IndexWorker
    ) -> None:
        self._catalog = catalog
        self._vector_index = vector_index
        self._worker = index_worker
        self._exact = ExactSearch(catalog.chunks)
        self.on_approximate: Callable[[Index, Vectors], None] = lambda _index, _vector: None
        """Called with each question that a whole index answered approximately; returns at once."""

    def search(
        self,
        index: Index,
        vector: Vectors,
        *,
        count: int,
        among: SqlCondition | None = None,
        is_exact: bool = False,
    ) -> Found:
        """Return up to `count` texts nearest to `vector`, (dimensions,) float32 of unit length."""
        if is_exact or (among and self._are_few(index, among)):
            return self._exactly(index, vector, count, among)
        if not self._worker.is_ready(index.key):
            if not self._catalog.chunks.count(index.id):
                return Found(NO_HITS, is_exact=True)
            why = f"The vector index is being loaded or repaired; {EXACTLY}"
            return self._exactly(index, vector, count, among, why)
        waiting = self._waiting(index)
        if len(waiting) > MANY_WAITING and len(waiting) > self._texts(index) // 2:
            why = f"Most of the index is still on its way to the vector index; {EXACTLY}"
            return self._exactly(index, vector, count, among, why)
        try:
            found = self._approximately(index, vector, count, among, waiting)
        except VectorStoreError as error:
            logger.warning("vector index: %s", error)
            self._worker.suspect(index.key)
            why = f"The vector index is not available; {EXACTLY}"
            return self._exactly(index, vector, count, among, why)
        if len(found.hits) == count or (among is None and len(found.hits) == self._texts(index)):
            return found
        # Fewer than there are: a filter or deleted chunks left some out, or the index lost some.
        if not waiting and among is None:
            self._worker.suspect(index.key)
        return self._exactly(index, vector, count, among)

    def _waiting(self, index: Index) -> list[int]:
        waiting: list[int] = self._catalog.changes.pending_ids(index.id).tolist()
        if len(waiting) > SLOWED_BY:
            self._worker.hurry()
        return waiting

    def _approximately(
        self,
        index: Index,
        vector: Vectors,
        count: int,
        among: SqlCondition | None,
        waiting: list[int],
    ) -> Found:
        found = Found(NO_HITS)
        for times in FILTERED_TIMES if among else (1,):
            # Chunks that were just deleted may still stand in the index: ask for that many more.
            asked = count * times + min(len(waiting), MORE_WAITING)
            scored = self._vector_index.search(index.key, vector, count=asked)
            is_all = len(scored) < asked
            if waiting:
                beside = self._exact.search(index, vector, count=asked, among=waiting)
                scored = _merged(scored, beside)
            found = self._live(index, scored, count, among)
            if is_all or len(found.hits) == count:
                break
        if among is None:
            self.on_approximate(index, vector)
        return found

    def _exactly(
        self,
        index: Index,
        vector: Vectors,
        count: int,
        among: SqlCondition | None,
        why: str | None = None,
    ) -> Found:
        ids = self._catalog.meeting.ids(index.id, among).tolist() if among else None
        found = self._exact.search(index, vector, count=count, among=ids)
        live = self._live(index, found, count, among)
        return Found(live.hits, is_exact=True, warnings=[why] if why else [])

    def _live(
        self, index: Index, scored: ScoredIds, count: int, among: SqlCondition | None
    ) -> Found:
        """Ask the catalog: what is not there is not alive.

        A filter is asked of some at a time: a broad one is met by enough of the first.
        """
        step = max(1, 2 * count if among else len(scored))
        parts = [NO_HITS]
        for start in range(0, len(scored), step):
            part = scored[start : start + step]
            alive = self._catalog.chunks.live(index.id, part.ids.tolist(), among=among)
            parts.append(part.where(np.isin(part.ids, alive)))
            if sum(map(len, parts)) >= count:
                break
        return Found(_joined(parts)[:count])

    def _are_few(self, index: Index, among: SqlCondition) -> bool:
        known = self._catalog.meeting.known(index.id, among)
        return known is not None and len(known) <= FEW_MEETING

    def _texts(self, index: Index) -> int:
        return self._catalog.chunks.count_texts(index.id)


def _joined(parts: Sequence[ScoredIds]) -> ScoredIds:
    return ScoredIds(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )


def _merged(*legs: ScoredIds) -> ScoredIds:
    """Return the hits of all legs best first, each once with its best score."""
    every = _joined(legs).best_first()
    _, first = np.unique(every.ids, return_index=True)
    return every.where(np.sort(first))
