"""A queue counted in tokens between many callers and a few worker threads.

Two lanes, oldest first within each. A free worker takes work at once: batches form only because
the workers are busy, never by waiting. A micro-batch holds texts of one model that run at one
length (`Backend.bucket`), so none is padded to its neighbours and no vector depends on them.

Not here: tokenizing, caching, loading of models.
"""

import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Condition, Lock, Thread

import numpy as np

from embedserve.engine.backend import Backend
from embedserve.errors import EmbedserveError, ModelError, OverloadedError
from embedserve.types import Lane, TokenIds, Vectors

logger = logging.getLogger(__name__)

# While both lanes wait, one batch in this many is bulk: queries stay quick, ingestion moves on.
BULK_TURN = 4
BUSY = "server busy, please try again.  maximum pending requests exceeded"


class _Request:
    """Texts that arrived together; `future` is resolved once: rows, an error, or cancelled."""

    def __init__(self, backend: Backend, rows: Vectors) -> None:
        self.backend = backend
        self.future: Future[Vectors] = Future()
        self.dimensions = rows.shape[1]
        self._rows = rows
        self._remaining = len(rows)
        self._lock = Lock()

    def deliver(self, row: int, vector: Vectors) -> None:
        self._rows[row] = vector
        with self._lock:
            self._remaining -= 1
            if self._remaining == 0 and self._is_wanted():
                self.future.set_result(self._rows)

    def fail(self, error: EmbedserveError) -> None:
        with self._lock:
            if self._is_wanted():
                self.future.set_exception(error)

    def _is_wanted(self) -> bool:
        # The caller may cancel at any moment; the second call settles who was first.
        return not self.future.done() and self.future.set_running_or_notify_cancel()


@dataclass(frozen=True)
class _Entry:
    order: int
    request: _Request
    row: int
    ids: TokenIds
    bucket: int


_Group = tuple[int, int]  # (identity of the backend, bucket in tokens)


class _Queue:
    """Entries of one lane by group; the group whose oldest entry waits longest goes first."""

    def __init__(self) -> None:
        self._groups: dict[_Group, deque[_Entry]] = {}

    def add(self, entry: _Entry) -> None:
        key = (id(entry.request.backend), entry.bucket)
        self._groups.setdefault(key, deque()).append(entry)

    def take(self, budget_tokens: int) -> list[_Entry]:
        """Take the oldest entry, and others of its bucket up to the budget."""
        key = min(self._groups, key=lambda key: self._groups[key][0].order)
        group = self._groups[key]
        count = max(1, budget_tokens // max(1, key[1]))
        taken = [group.popleft() for _ in range(min(count, len(group)))]
        if not group:
            del self._groups[key]
        return taken

    def __bool__(self) -> bool:
        return bool(self._groups)


class Scheduler:
    """Run texts through backends on `workers` threads, in fair micro-batches."""

    def __init__(self, *, workers: int, micro_batch_tokens: int, queue_tokens: int) -> None:
        self.workers = workers
        self._micro_batch_tokens = micro_batch_tokens
        self._limit_tokens = queue_tokens
        self._queued_tokens: dict[Lane, int] = {"small": 0, "bulk": 0}
        self._order = 0
        self._small_turns = 0
        self._is_closed = False
        self._lanes: dict[Lane, _Queue] = {"small": _Queue(), "bulk": _Queue()}
        self._changed = Condition()
        self._threads = [
            Thread(target=self._work, name=f"embed-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queued_tokens(self) -> int:
        """Tokens that wait for a worker now."""
        return sum(self._queued_tokens.values())

    def submit(
        self,
        backend: Backend,
        texts: Sequence[TokenIds],
        *,
        dimensions: int,
        lane: Lane,
        is_patient: bool = False,
    ) -> Future[Vectors]:
        """Queue all texts or none; the future gives (len(texts), dimensions) float32 in order.

        Cancel the future to drop what has not run yet. When the lane is full a patient caller
        waits for room; for others OverloadedError is raised. Raises ModelError for a text that
        the backend cannot take.
        """
        rows: Vectors = np.empty((len(texts), dimensions), dtype=np.float32)
        request = _Request(backend, rows)
        if not texts:
            request.future.set_result(rows)
            return request.future
        tokens = sum(len(ids) for ids in texts)
        buckets = [backend.bucket(len(ids)) for ids in texts]
        with self._changed:
            while self._is_full(lane, tokens) and is_patient and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                raise OverloadedError("The server is stopping; send the request again later.")
            if self._is_full(lane, tokens):
                raise OverloadedError(BUSY)
            for row, (ids, bucket) in enumerate(zip(texts, buckets, strict=True)):
                self._lanes[lane].add(_Entry(self._order, request, row, ids, bucket))
                self._order += 1
            self._queued_tokens[lane] += tokens
            # All of them: workers and patient callers wait on the same condition.
            self._changed.notify_all()
        return request.future

    def _is_full(self, lane: Lane, tokens: int) -> bool:
        """Tell whether a lane has no room; a request larger than all of it waits for none."""
        queued = self._queued_tokens[lane]
        return queued > 0 and queued + tokens > self._limit_tokens

    def close(self, timeout_s: float = 10) -> None:
        """Refuse new work, finish what is queued within `timeout_s`, fail the rest."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout_s)
        with self._changed:
            for queue in self._lanes.values():
                while queue:
                    for entry in queue.take(self._micro_batch_tokens):
                        entry.request.fail(OverloadedError("The server stopped."))

    def _work(self) -> None:
        while batch := self._next_batch():
            # The backend may be slow or fail; the lock is not held here.
            _run(batch)

    def _next_batch(self) -> list[_Entry]:
        """Wait for work and take it; an empty list means: closed and drained."""
        with self._changed:
            while True:
                while not any(self._lanes.values()):
                    if self._is_closed:
                        return []
                    self._changed.wait()
                lane = self._next_lane()
                taken = self._lanes[lane].take(self._micro_batch_tokens)
                self._queued_tokens[lane] -= sum(len(entry.ids) for entry in taken)
                self._changed.notify_all()  # there is room for a patient caller
                # Dropped before it costs compute: nobody waits for these any more.
                if live := [entry for entry in taken if not entry.request.future.done()]:
                    return live

    def _next_lane(self) -> Lane:
        small, bulk = self._lanes["small"], self._lanes["bulk"]
        if small and (not bulk or self._small_turns < BULK_TURN):
            self._small_turns += 1
            return "small"
        self._small_turns = 0
        return "bulk"


def _run(batch: list[_Entry]) -> None:
    """Run one micro-batch; when it fails, run its members alone so that only the bad one fails."""
    request = batch[0].request
    try:
        rows = request.backend.run([entry.ids for entry in batch])
        if rows.shape != (len(batch), request.dimensions):
            raise ModelError(
                f"The model gave {rows.shape} numbers for {len(batch)} texts of "
                f"{request.dimensions} dimensions; its manifest does not fit its graph."
            )
    except Exception as error:
        if len(batch) > 1:
            for entry in batch:
                _run([entry])
            return
        logger.exception("one text of %d tokens failed in the engine", len(batch[0].ids))
        reason = error.message if isinstance(error, EmbedserveError) else repr(error)
        [entry] = batch
        entry.request.fail(ModelError(f"Text {entry.row} could not be embedded: {reason}"))
        return
    for entry, row in zip(batch, rows, strict=True):
        entry.request.deliver(entry.row, row)
