"""Carries changes from the catalog to the vector index, and repairs what differs.

The only writer of the vector index. Whatever happens to it, the catalog's log still holds what
was not acknowledged, and an upsert done twice changes nothing.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from threading import Condition, Thread

from embedserve.errors import EmbedserveError, VectorStoreError
from embedserve.store.catalog import Catalog
from embedserve.store.repair import check, repair
from embedserve.store.vector_index import VectorIndex, probe
from embedserve.types import Index

logger = logging.getLogger(__name__)

BATCH = 500
"""Changes in one call: Chroma's own guidance is 50 to 250, measured best here up to 1,000."""
RETRY_S = (0.2, 0.5, 1, 2, 5)
RECOUNT_S = 30
"""How often an idle worker compares the numbers of vectors: one short call for each index."""
INTERRUPT_POLL_S = 0.2
"""A cancelled job waits no longer than that; what interrupts it has no event to wait for."""


@dataclass(frozen=True)
class _Failure:
    """What went wrong last with one index, and when it is tried again."""

    message: str
    count: int
    retry_at: float


class IndexWorker:
    """One thread that keeps the vector index up with the catalog."""

    def __init__(self, catalog: Catalog, vector_index: VectorIndex) -> None:
        self._catalog = catalog
        self._vector_index = vector_index
        self._changed = Condition()
        self._has_work = True
        self._is_stopping = False
        # Each doubt about an index raises its number of losses. It is checked, and ready, while
        # the number is still the one at which that was found.
        self._losses_of_all = 0
        self._losses: Counter[int] = Counter()
        self._ready: dict[int, int] = {}
        self._checked: dict[int, int] = {}
        self._failures: dict[int, _Failure] = {}
        self._live: set[int] = set()
        self._batches = 0
        self._recount_at = time.monotonic() + RECOUNT_S
        self._thread = Thread(target=self._run, name="index-worker", daemon=True)

    def start(self, *, check: bool) -> None:
        """Begin; with `check`, first compare every index with its catalog and repair it."""
        if check:
            self.suspect()
        self._thread.start()

    def stop(self, timeout_s: float = 10) -> None:
        """Finish the batch in hand and end; what is left waits in the catalog."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def is_alive(self) -> bool:
        """Tell whether the thread runs; it does from `start` to `stop`."""
        return self._thread.is_alive()

    def problems(self) -> dict[int, str]:
        """Map index id to why its changes do not reach the vector index at present."""
        with self._changed:
            failures = self._failures.items()
            return {id_: failure.message for id_, failure in failures if id_ in self._live}

    def wake(self, *, check: bool = False) -> None:
        """Tell that the catalog changed, or (`check`) that any index may have lost something."""
        if check:
            self.suspect()
        with self._changed:
            if check:  # it was started again: what failed may work now
                self._failures.clear()
            self._has_work = True
            self._changed.notify_all()

    def suspect(self, index_id: int | None = None) -> None:
        """Tell that the vector index failed or answered too little: it may have lost something.

        It is not ready for that index, or for any, until it has been checked.
        """
        with self._changed:
            if index_id is None:
                self._losses_of_all += 1
            else:
                self._losses[index_id] += 1
            self._has_work = True
            self._changed.notify_all()

    def is_ready(self, index_id: int) -> bool:
        """Tell whether the vector index has answered for this index since it was (re)started.

        Chroma replays its log on the first call, 5 s for 20,000 chunks (measured); until that
        is over, queries are better served exactly from the catalog.
        """
        return self._ready.get(index_id) == self._losses_of(index_id)

    def wait_until_applied(
        self, index_id: int, timeout_s: float, *, is_interrupted: Callable[[], bool] = lambda: False
    ) -> bool:
        """Wait until nothing is pending for an index; False when that takes too long.

        `is_interrupted` is asked several times a second and ends the wait at once.
        """
        deadline = time.monotonic() + timeout_s
        self.wake()
        while True:
            batches = self._batches  # before the question, so that no batch after it is missed
            if not self._catalog.changes.has_pending(index_id):
                return True
            left_s = deadline - time.monotonic()
            if self._is_stopping or left_s <= 0 or is_interrupted():
                return False
            self._wait_for_batch(batches, timeout_s=min(INTERRUPT_POLL_S, left_s))

    def _losses_of(self, index_id: int) -> int:
        return self._losses_of_all + self._losses[index_id]

    def _run(self) -> None:
        outages = 0
        while not self._is_stopping:
            try:
                if not self._pass():
                    self._wait_for_work()
                outages = 0
            except VectorStoreError as error:
                self.suspect()
                outages += 1
                delay_s = _retry_s(outages)
                logger.warning("vector index: %s Next try in %s s.", error, delay_s)
                self._sleep(delay_s)
            except Exception:  # without this thread nothing would ever be applied again
                logger.exception("the index worker could not read the catalog")
                self._sleep(RETRY_S[-1])

    def _pass(self) -> bool:
        """Carry out the drops and one batch of each index; tell whether there may be more.

        One batch in turn, so that a large index never starves the others. An index that is
        deleted during a pass is dropped in the next one, after all that this one wrote to it.
        Raises VectorStoreError when the vector index answers nothing at all.
        """
        self._has_work = False
        for index_id in self._catalog.changes.dropped_indexes():
            self._attempt(index_id, f"deleted index {index_id}", partial(self._drop, index_id))
        is_recount = time.monotonic() >= self._recount_at
        if is_recount:
            self._recount_at = time.monotonic() + RECOUNT_S
        indexes = self._catalog.indexes.all()
        self._live = {index.id for index in indexes}
        is_more = False
        for index in indexes:
            step = partial(self._advance, index, is_recount=is_recount)
            is_more = self._attempt(index.id, f"index {index.name}", step) or is_more
        return is_more

    def _attempt(self, index_id: int, label: str, step: Callable[[], bool]) -> bool:
        """Take a step for one index, unless it failed just now; the others go on when it fails."""
        former = self._failures.get(index_id)
        started = time.monotonic()
        if self._is_stopping or (former and started < former.retry_at):
            return False
        try:
            is_more = step()
        except Exception as error:  # accounted for in `problems`
            count = former.count + 1 if former else 1
            _log(label, error, former)
            # As long as it took, or longer: a slow failure leaves half of the time to the others.
            delay_s = max(_retry_s(count), time.monotonic() - started)
            failure = _Failure(_message(error), count, time.monotonic() + delay_s)
            with self._changed:
                self._failures[index_id] = failure
            if isinstance(error, VectorStoreError):
                probe(self._vector_index)
                self.suspect(index_id)
            return False
        with self._changed:
            self._failures.pop(index_id, None)
        return is_more

    def _drop(self, index_id: int) -> bool:
        self._vector_index.drop(index_id)
        self._catalog.changes.acknowledge_drop(index_id)
        for known in (self._ready, self._checked, self._losses):
            known.pop(index_id, None)
        return False

    def _advance(self, index: Index, *, is_recount: bool) -> bool:
        """Make an index ready if it is not, then apply a batch; tell whether there may be more."""
        losses = self._losses_of(index.id)
        if self._checked.get(index.id, 0) != losses:
            self._check(index)
        elif self._ready.get(index.id) != losses:
            self._compare(index)
        self._checked[index.id] = self._ready[index.id] = losses
        changes = self._catalog.changes.pending(index, limit=BATCH)
        if changes is None:
            if is_recount:  # a Chroma of others may be emptied between two calls
                self._compare(index)
            return is_recount
        if changes.deletes:
            self._vector_index.delete(index.id, changes.deletes)
        if len(changes.upserts.ids):
            self._vector_index.upsert(index.id, changes.upserts.ids, changes.upserts.vectors)
        self._catalog.changes.acknowledge(index.id, changes.up_to)
        with self._changed:
            self._batches += 1
            self._changed.notify_all()
        return True

    def _check(self, index: Index) -> None:
        health = check(self._catalog, self._vector_index, index)
        repaired = repair(self._catalog, self._vector_index, index, health)
        if repaired:
            logger.warning(
                "index %s: repairing %d entries of the vector index", index.name, repaired
            )

    def _compare(self, index: Index) -> None:
        """Let the vector index load what it holds, and check it when the number of it is wrong."""
        stored = self._vector_index.count(index.id)
        waits = self._catalog.changes.has_pending(index.id)
        if waits or stored != self._catalog.chunks.count(index.id):
            self._check(index)

    def _wait_for_batch(self, seen: int, *, timeout_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._batches != seen or self._is_stopping, timeout_s)

    def _wait_for_work(self) -> None:
        with self._changed:
            retries = [failure.retry_at for failure in self._failures.values()]
            until = min([self._recount_at, *retries])
            self._changed.wait_for(
                lambda: self._has_work or self._is_stopping,
                timeout=max(0.0, until - time.monotonic()),
            )

    def _sleep(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping, timeout=seconds)


def _retry_s(failures: int) -> float:
    return RETRY_S[min(failures, len(RETRY_S)) - 1]


def _message(error: Exception) -> str:
    if isinstance(error, EmbedserveError):
        return error.message
    return f"Unexpected failure: {type(error).__name__}; see the log."


def _log(label: str, error: Exception, former: _Failure | None) -> None:
    """Log a failure once, not at each try."""
    if former and former.message == _message(error):
        return
    if isinstance(error, EmbedserveError):
        logger.warning("%s: %s It is tried again.", label, error)
    else:
        logger.error("%s: it is tried again after", label, exc_info=error)
