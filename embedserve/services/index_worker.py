"""Carries changes from the catalog to the vector index, and repairs what differs.

The only writer of the vector index. Whatever happens to it, the catalog's log still holds what
was not acknowledged, and an upsert done twice changes nothing.
"""

import logging
import time
from threading import Condition, Thread

from embedserve.errors import EmbedserveError, VectorStoreError
from embedserve.store.catalog import Catalog
from embedserve.store.repair import check, repair
from embedserve.store.vector_index import VectorIndex
from embedserve.types import Index

logger = logging.getLogger(__name__)

BATCH = 500
"""Changes in one call: Chroma's own guidance is 50 to 250, measured best here up to 1,000."""
RETRY_S = (0.2, 0.5, 1, 2, 5)
RECOUNT_S = 30
"""How often an idle worker compares the numbers of vectors: one short call for each index."""


class IndexWorker:
    """One thread that keeps the vector index up with the catalog."""

    def __init__(self, catalog: Catalog, vector_index: VectorIndex) -> None:
        self._catalog = catalog
        self._vector_index = vector_index
        self._changed = Condition()
        self._has_work = True
        self._is_check_due = False
        self._is_stopping = False
        self._ready: set[int] = set()
        self._losses = 0
        self._thread = Thread(target=self._run, name="index-worker", daemon=True)

    def start(self, *, check: bool) -> None:
        """Begin; with `check`, first compare every index with its catalog and repair it."""
        self._is_check_due = check
        self._thread.start()

    def stop(self, timeout_s: float = 10) -> None:
        """Finish the batch in hand and end; what is left waits in the catalog."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_s)

    def wake(self, *, check: bool = False) -> None:
        """Tell that the catalog changed, or (`check`) that the index may have lost something."""
        with self._changed:
            self._has_work = True
            if check:
                self._lose()
            self._changed.notify_all()

    def suspect(self) -> None:
        """Tell that the vector index failed or answered too little: it may have lost something."""
        with self._changed:
            self._lose()
            self._changed.notify_all()

    def is_ready(self, index_id: int) -> bool:
        """Tell whether the vector index has answered for this index since it was (re)started.

        Chroma replays its log on the first call, 5 s for 20,000 chunks (measured); until that
        is over, queries are better served exactly from the catalog.
        """
        return index_id in self._ready

    def wait_until_applied(self, index_id: int, timeout_s: float) -> bool:
        """Wait until nothing is pending for an index; False when that takes too long."""
        deadline = time.monotonic() + timeout_s
        self.wake()
        with self._changed:
            while len(self._catalog.changes.pending_ids(index_id)):
                if self._is_stopping or time.monotonic() >= deadline:
                    return False
                # Notified after each batch; the bound covers an index that is deleted meanwhile.
                self._changed.wait(timeout=min(1.0, deadline - time.monotonic()))
        return True

    def drop(self, index_id: int) -> None:
        """Remove a deleted index from the vector index; an index that is down loses it later."""
        try:
            self._vector_index.drop(index_id)
        except VectorStoreError as error:
            logger.warning(
                "vectors of the deleted index %d stay until a rebuild: %s", index_id, error
            )

    def _lose(self) -> None:
        self._is_check_due = True
        self._losses += 1
        self._ready.clear()

    def _run(self) -> None:
        failures = 0
        while not self._is_stopping:
            try:
                self._check_if_due()
                # One batch of each index in turn, so that a large one never starves the others.
                applied = [self._apply_one(index) for index in self._catalog.indexes.all()]
                failures = 0
                if not any(applied):
                    self._wait_for_work()
            except VectorStoreError as error:
                self.suspect()
                delay = RETRY_S[min(failures, len(RETRY_S) - 1)]
                failures += 1
                logger.warning("vector index: %s Next try in %s s.", error, delay)
                self._sleep(delay)
                continue
            except EmbedserveError:
                logger.exception("the index worker could not read the catalog")
                self._sleep(RETRY_S[-1])
                continue

    def _check_if_due(self) -> None:
        if not self._is_check_due:
            return
        losses = self._losses
        for index in self._catalog.indexes.all():
            self._check(index)
        with self._changed:
            self._is_check_due = losses != self._losses

    def _check(self, index: Index) -> None:
        health = check(self._catalog, self._vector_index, index)
        repaired = repair(self._catalog, self._vector_index, index, health)
        if repaired:
            logger.warning(
                "index %s: repairing %d entries of the vector index", index.name, repaired
            )

    def _apply_one(self, index: Index) -> bool:
        """Apply one batch of an index; tell whether there was one."""
        if index.id not in self._ready:
            self._make_ready(index)
        changes = self._catalog.changes.pending(index, limit=BATCH)
        if changes is None:
            return False
        if changes.deletes:
            self._vector_index.delete(index.id, changes.deletes)
        if len(changes.upserts.ids):
            self._vector_index.upsert(index.id, changes.upserts.ids, changes.upserts.vectors)
        self._catalog.changes.acknowledge(index.id, changes.up_to)
        with self._changed:
            self._changed.notify_all()
        return True

    def _make_ready(self, index: Index) -> None:
        """Let the vector index load what it holds, and compare the number of it."""
        losses = self._losses
        stored = self._vector_index.count(index.id)
        waiting = len(self._catalog.changes.pending_ids(index.id))
        if waiting or stored != self._catalog.chunks.count(index.id):
            self._check(index)
        with self._changed:
            if losses == self._losses:
                self._ready.add(index.id)

    def _wait_for_work(self) -> None:
        with self._changed:
            is_told = self._changed.wait_for(
                lambda: self._has_work or self._is_check_due or self._is_stopping,
                timeout=RECOUNT_S,
            )
            self._has_work = False
        if not is_told:
            self._recount()

    def _recount(self) -> None:
        """Notice what nobody told: a Chroma of others that was emptied between two calls."""
        for index in self._catalog.indexes.all():
            if index.id in self._ready:
                self._make_ready(index)

    def _sleep(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping, timeout=seconds)
