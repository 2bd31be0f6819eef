"""How many of the nearest texts the approximate index finds, measured on some real queries.

One thread asks both ways anew what a query asked, in the background: nothing waits for it, and what
comes while it is busy, or rests, is not measured. Only questions to whole indexes are: a filter is
answered exactly wherever the approximate index leaves room.
"""

import logging
import random
import time
from collections import deque
from dataclasses import dataclass
from threading import Condition, Thread

from embedserve.services.dense_leg import DenseLeg, Found
from embedserve.store.catalog import Catalog
from embedserve.types import Index, Vectors

logger = logging.getLogger(__name__)

COUNT = 100
"""Candidates that are compared: what a leg gives to a query."""
KEPT = 100
"""Samples of an index, the newest, that its recall is the mean of."""
REST_TIMES = 500
"""It rests so many times as long as a sample took: .2 % of one core's time at the most."""
TIE = 1e-5
"""Scores so near are one: both sides sum float32 products, in another order."""


@dataclass(frozen=True)
class Recall:
    """What the newest samples of one index say."""

    mean: float
    """Share of the COUNT nearest texts that the approximate index finds, 0..1."""
    samples: int


class RecallSampler:
    """Compare the approximate with the exact answer after a share of queries; 0: after none."""

    def __init__(self, catalog: Catalog, dense: DenseLeg, *, share: float) -> None:
        self._catalog = catalog
        self._dense = dense
        self._share = share
        self._changed = Condition()
        self._waiting: tuple[Index, Vectors] | None = None
        self._is_busy = self._is_stopping = False
        self._rests_until = 0.0
        self._found: dict[int, deque[float]] = {}
        self.dropped = 0
        """Queries that were drawn, and came while it was busy or rested, or changes did."""
        self._thread = Thread(target=self._run, name="recall-sample", daemon=True)

    def start(self) -> None:
        """Begin to measure."""
        if self._share:
            self._thread.start()

    def stop(self, timeout_s: float = 10) -> None:
        """Finish the sample in hand and end."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def offer(self, index: Index, vector: Vectors) -> None:
        """Draw whether a query is measured; `vector` is (dimensions,) float32 of unit length."""
        if random.random() >= self._share:
            return
        with self._changed:
            if self._is_busy or self._waiting or time.monotonic() < self._rests_until:
                self.dropped += 1
                return
            self._waiting = (index, vector.copy())
            self._changed.notify_all()

    def recall(self, index_id: int) -> Recall | None:
        """Return what is known of an index; None: nothing yet."""
        with self._changed:
            found = list(self._found.get(index_id, ()))
        return Recall(sum(found) / len(found), len(found)) if found else None

    def recalls(self) -> dict[str, Recall]:
        """Return what is known of each index, by name; forget those that are gone."""
        indexes = self._catalog.indexes.all()
        with self._changed:
            for gone in self._found.keys() - {index.id for index in indexes}:
                del self._found[gone]
        return {one.name: recall for one in indexes if (recall := self.recall(one.id))}

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_stopping)
                if self._is_stopping or self._waiting is None:
                    return
                (index, vector), self._waiting = self._waiting, None
                self._is_busy = True
            started = time.monotonic()
            recall = self._measured(index, vector)
            with self._changed:
                if recall is None:
                    self.dropped += 1
                else:
                    self._found.setdefault(index.id, deque(maxlen=KEPT)).append(recall)
                self._rests_until = time.monotonic() + REST_TIMES * (time.monotonic() - started)
                self._is_busy = False

    def _measured(self, index: Index, vector: Vectors) -> float | None:
        """Return the recall for one question; None where it cannot be told."""
        try:
            before = self._catalog.changes.last_number()
            found = self._dense.search(index, vector, count=COUNT)
            if found.is_exact:  # the index is down, being loaded, or gone
                return None
            exact = self._dense.search(index, vector, count=COUNT, is_exact=True)
            has_changed = self._catalog.changes.last_number() != before
        except Exception:  # without this thread nothing would ever be measured again
            logger.exception("recall of index %s could not be measured", index.name)
            return None
        return None if has_changed or not exact.hits else recall_of(found, exact)


def recall_of(found: Found, exact: Found) -> float:
    """Return the share of the exact hits that were found; one as near as the last counts as it."""
    nearest = {hit.id for hit in exact.hits}
    least = exact.hits[-1].score - TIE
    right = sum(hit.id in nearest or hit.score >= least for hit in found.hits)
    return min(1.0, right / len(exact.hits))
