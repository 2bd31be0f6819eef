"""Indexes in the background what full-text search lacks, in steps that keep nobody waiting.

That is after an import, a change of the language, a document of more than 10,000 chunks, and the
first start of a release that has full text. And puts segments together once nobody writes.
"""

import logging
import time
from threading import Event, Thread

from embedserve.store.catalog import Catalog

logger = logging.getLogger(__name__)

RETRY_S = 10.0
TELL_EVERY_S = 10.0


class LexicalWorker:
    """One thread, from `start` to `stop`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._stopping = Event()
        self._told_at = 0.0
        self._thread = Thread(target=self._run, name="lexical-worker", daemon=True)

    def start(self) -> None:
        """Begin with what waits already."""
        self._thread.start()

    def stop(self, timeout_s: float = 10) -> None:
        """Finish the step in hand and end; what is left waits in the catalog."""
        self._stopping.set()
        self._catalog.lexical.has_pending.set()  # it may be waiting for that
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        waiting = self._catalog.lexical.has_pending
        while waiting.wait():
            waiting.clear()  # before the question, so that no stop after it is missed
            if self._stopping.is_set():
                return
            try:
                for index in self._catalog.indexes.all():
                    self._index(index.id, index.name)
            except Exception:  # without this thread nothing would ever be indexed again
                logger.exception("full text: chunks that wait could not be indexed")
                self._stopping.wait(RETRY_S)
                waiting.set()

    def _index(self, index_id: int, name: str) -> None:
        while not self._stopping.is_set() and self._catalog.lexical.index_pending(index_id):
            if time.monotonic() - self._told_at > TELL_EVERY_S:
                self._told_at = time.monotonic()
                left = self._catalog.lexical.pending(index_id)
                logger.info("index %s: %d chunks wait for full-text search", name, left)
        if not self._stopping.is_set():
            self._catalog.lexical.gather(index_id)
