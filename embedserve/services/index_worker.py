"""Carries changes from the catalog to the vector index, and repairs what differs.

The only writer of the vector index. Whatever happens to it, the catalog's log still holds what
was not acknowledged, and what was applied already is not applied again (`row_writer.py`).
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from threading import Condition, Thread
from typing import TypeVar

from embedserve.errors import VectorStoreError, VectorStoreRefusedError
from embedserve.services.generation_builder import GenerationBuilder
from embedserve.services.index_comparison import compare, put_right
from embedserve.services.pace import Pace
from embedserve.services.questions import Questions
from embedserve.services.retries import RETRY_S, Failure, failed, keep_only, retry_s
from embedserve.services.row_writer import RowWriter
from embedserve.store.catalog import Catalog
from embedserve.store.generations import Generation
from embedserve.store.vector_index import VectorIndex, probe
from embedserve.types import Index, PendingChanges

logger = logging.getLogger(__name__)

BATCH = 1000
"""Changes in one call; twice as cheap as 300 in an index of 30,000 (docs/decisions.md)."""
RECOUNT_S = 30
"""How often an idle worker compares the numbers of vectors: one short call for each index."""
INTERRUPT_POLL_S = 0.2
"""A cancelled job waits no longer than that; what interrupts it has no event to wait for."""

T = TypeVar("T")


class IndexWorker:
    """One thread that keeps the vector index up with the catalog."""

    def __init__(self, catalog: Catalog, vector_index: VectorIndex) -> None:
        # Told when the vector index stores nothing any more, by who may start it anew.
        self.on_refusal: Callable[[], None] | None = None
        self._catalog = catalog
        self._vector_index = vector_index
        self._rows = RowWriter(catalog, vector_index, self._losses_of)
        self._builder = GenerationBuilder(catalog, vector_index, self._rows, batch=BATCH)
        self._questions = Questions()
        self._changed = Condition()
        self._pace = Pace(self._changed, enough=BATCH, waiting=catalog.changes.count)
        self._has_work = True
        self._is_stopping = False
        # All of these by `Index.key`. Each doubt about an index raises its number of losses. It is
        # checked, and ready, while the number is still the one at which that was found.
        self._losses_of_all = 0
        self._losses: Counter[int] = Counter()
        self._ready: dict[int, int] = {}
        self._checked: dict[int, int] = {}
        self._failures: dict[int, Failure] = {}
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
            self._pace.hurry()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._questions.close()

    @property
    def is_alive(self) -> bool:
        """Tell whether the thread runs; it does from `start` to `stop`."""
        return self._thread.is_alive()

    @property
    def is_stopping(self) -> bool:
        """Tell whether `stop` was called."""
        return self._is_stopping

    def has_doubts(self) -> bool:
        """Tell whether an index was not checked since the vector index may have lost something."""
        keys = [index.key for index in self._catalog.indexes.all()]
        return any(self._checked.get(key, 0) != self._losses_of(key) for key in keys)

    def problems(self) -> dict[int, str]:
        """Map `Index.key` to why its changes do not reach the vector index at present."""
        with self._changed:
            return {key: f.message for key, f in self._failures.items() if key in self._live}

    def wake(self, *, check: bool = False) -> None:
        """Tell that the catalog changed, or (`check`) that any index may have lost something."""
        if check:
            self.suspect()
        with self._changed:
            if check:  # it was started again: what failed may work now
                self._failures.clear()
            self._has_work = True
            self._changed.notify_all()

    def hurry(self) -> None:
        """Tell that there is something to do at once, or that somebody is slowed down by it."""
        self._pace.hurry()
        self.wake()

    def suspect(self, key: int | None = None) -> None:
        """Tell that the vector index failed or answered too little: it may have lost something.

        It is not ready for that index, or for any, until it has been checked.
        """
        with self._changed:
            if key is None:
                self._losses_of_all += 1
            else:
                self._losses[key] += 1
            self._has_work = True
            self._pace.hurry()

    def is_ready(self, key: int) -> bool:
        """Tell whether the vector index has answered for this index since it was (re)started.

        Chroma replays its log on the first call, 5 s for 20,000 chunks (measured); until that
        is over, queries are better served exactly from the catalog.
        """
        return self._ready.get(key) == self._losses_of(key)

    def ask(self, question: Callable[[], T]) -> Future[T]:
        """Run something between two batches, while nothing is written to the vector index.

        The future holds what it returned or raised; OverloadedError when the worker stops first.
        """
        answer = self._questions.ask(question)
        self.hurry()
        return answer

    def wait_for_batch(self, seen: int, *, timeout_s: float) -> int:
        """Wait until more batches are applied than `seen`; return how many there are now."""
        with self._changed:
            self._changed.wait_for(lambda: self._batches != seen or self._is_stopping, timeout_s)
            return self._batches

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
            self._pace.hurry()
            self.wait_for_batch(batches, timeout_s=min(INTERRUPT_POLL_S, left_s))

    def _losses_of(self, key: int) -> int:
        return self._losses_of_all + self._losses[key]

    def _run(self) -> None:
        outages = 0
        while not self._is_stopping:
            try:
                is_more = self._pass()
                self._pace.linger()
                if not is_more:
                    self._wait_for_work()
                outages = 0
            except VectorStoreError as error:
                self.suspect()
                outages += 1
                delay_s = retry_s(outages)
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
        self._pace.begin()
        self._questions.answer()
        dropped = self._catalog.generations.dropped()
        for key in dropped:
            self._attempt(key, f"former generation {key}", partial(self._drop, key))
        is_recount = time.monotonic() >= self._recount_at
        if is_recount:
            self._recount_at = time.monotonic() + RECOUNT_S
        indexes = self._catalog.indexes.all()
        self._live = {index.key for index in indexes}
        with self._changed:
            for noted in (self._losses, self._ready, self._checked, self._failures):
                keep_only(noted, self._live.union(dropped))
        is_more = False
        for index in indexes:
            step = partial(self._advance, index, is_recount=is_recount)
            is_more = self._attempt(index.key, f"index {index.name}", step) or is_more
        return is_more

    def _attempt(self, key: int, label: str, step: Callable[[], bool]) -> bool:
        """Take a step for one index, unless it failed just now; the others go on when it fails."""
        former = self._failures.get(key)
        started = time.monotonic()
        if self._is_stopping or (former and started < former.retry_at):
            return False
        try:
            is_more = step()
        except Exception as error:  # accounted for in `problems`
            failure = failed(label, error, former, started=started)
            with self._changed:
                self._failures[key] = failure
            if self.on_refusal and failure.count > 1 and isinstance(error, VectorStoreRefusedError):
                self.on_refusal()
            if isinstance(error, VectorStoreError):
                probe(self._vector_index)
                self.suspect(key)
            return False
        with self._changed:
            self._failures.pop(key, None)
        return is_more

    def _drop(self, key: int) -> bool:
        self._vector_index.drop(key)
        self._rows.forget(key)
        self._catalog.generations.acknowledge_drop(key)
        return False

    def _advance(self, index: Index, *, is_recount: bool) -> bool:
        """Make an index ready if it is not, then apply a batch; tell whether there may be more."""
        self._make_ready(index)
        building = self._catalog.generations.building(index.id)
        changes = self._catalog.changes.pending(index, limit=BATCH)
        if changes:
            self._apply(index, changes, building)
        if building:
            self._build(index, building, is_in_step=changes is None)
        elif is_recount and not changes:  # a Chroma of others may be emptied between two calls
            compare(self._catalog, self._vector_index, index)
        return bool(changes or building or is_recount)

    def _apply(self, index: Index, changes: PendingChanges, building: Generation | None) -> None:
        for key in (index.key, building.key) if building else (index.key,):
            if changes.deletes:
                self._vector_index.delete(key, changes.deletes)
            self._rows.store(replace(index, key=key), changes.upserts)
        self._catalog.changes.acknowledge(index.id, changes.up_to)
        if not building:  # which is not to wait
            self._pace.applied()
        self._tell_of_batch()

    def _make_ready(self, index: Index) -> None:
        losses = self._losses_of(index.key)
        if self._checked.get(index.key, 0) != losses:
            put_right(self._catalog, self._vector_index, index)
        elif self._ready.get(index.key) != losses:
            compare(self._catalog, self._vector_index, index)
        self._checked[index.key] = self._ready[index.key] = losses

    def _build(self, index: Index, building: Generation, *, is_in_step: bool) -> None:
        """Fill the new generation of an index; let it serve once it holds all there is."""
        losses = self._losses_of(building.key)
        if self._builder.advance(index, building):
            self._tell_of_batch()
        elif is_in_step and self._builder.finish(index, building):
            self._checked[building.key] = self._ready[building.key] = losses
            logger.info("index %s: generation %d serves now", index.name, building.key)
            self._tell_of_batch()

    def _tell_of_batch(self) -> None:
        with self._changed:
            self._batches += 1
            self._changed.notify_all()

    def _wait_for_work(self) -> None:
        with self._changed:
            until = min([self._recount_at, *(f.retry_at for f in self._failures.values())])
            self._changed.wait_for(
                lambda: self._has_work or self._is_stopping,
                timeout=max(0.0, until - time.monotonic()),
            )

    def _sleep(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping, timeout=seconds)
