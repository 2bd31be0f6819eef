"""A queue counted in tokens between many callers and a few worker threads.

A free worker takes work at once: batches form only because the workers are busy, never by waiting.
A micro-batch holds texts of one model and one bucket of it, so no vector depends on its
neighbours. Requests are refused early, when the queue would take too long, and never half.

Not here: tokenizing, caching, loading of models. What runs next is decided in `lanes.py`.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from threading import Condition, RLock

import numpy as np

from embedserve.engine.backend import Backend
from embedserve.engine.lanes import Lanes, shape_of
from embedserve.engine.requests import EmbedRequest, Entry, WhenFull, busy, run_tokens
from embedserve.engine.throughput import Throughput
from embedserve.engine.workers import Worker, Workers
from embedserve.errors import EmbedserveError, ModelError, OverloadedError, TextFailedError
from embedserve.types import BatchTokens, Lane, TokenIds, Vectors

logger = logging.getLogger(__name__)

# A run may take this many times as long as its model's mean before it counts as overdue: other
# programs may have the cores.
_PATIENCE = 50


@dataclass(frozen=True)
class BatchReport:
    """One run, for whoever keeps count."""

    lane: Lane
    texts: int
    tokens: int
    """At the length at which they ran."""
    waited_s: float
    """The longest that one of them waited."""
    run_s: float


def ignore_report(report: BatchReport) -> None:
    """Keep no count."""


class Scheduler:
    """Run texts through backends on `workers` threads, in fair micro-batches."""

    def __init__(
        self,
        *,
        workers: int,
        batch_tokens: BatchTokens,
        queue_tokens: int,
        queue_s: float = 120.0,
        worker_timeout_s: float = 60.0,
        report: Callable[[BatchReport], None] = ignore_report,
    ) -> None:
        """Start the threads.

        At most `queue_tokens` wait in each lane, and nothing for longer than `queue_s`; a run that
        takes longer than `worker_timeout_s`, and than its model usually does, is given up.
        """
        self.workers = workers
        self._queue_tokens = queue_tokens
        self._queue_s = queue_s
        self._worker_timeout_s = worker_timeout_s
        self._report = report
        self._lanes = Lanes(batch_tokens, workers=workers)
        self._throughput = Throughput()
        self._order = 0
        self._patient = 0
        self._is_closed = False
        self._lock = RLock()
        self._work_came = Condition(self._lock)
        self._room_came = Condition(self._lock)
        self._workers = Workers(
            workers,
            self._lock,
            take=self._take,
            run=self._run,
            give_up=self._give_up,
            check_every_s=min(1.0, worker_timeout_s / 4),
        )

    @property
    def restarts(self) -> int:
        """How many workers were given up and replaced."""
        return self._workers.restarts

    @property
    def is_stuck(self) -> bool:
        """Tell whether no worker comes back."""
        return self._workers.is_stuck

    def queued_tokens(self, lane: Lane) -> int:
        """Return how many tokens wait for a worker now."""
        with self._lock:
            return sum(self._lanes.waiting(lane).values())

    def excess_s(self, backend: Backend, lane: Lane, tokens: int, *, coming: int) -> float:
        """Return how long until `tokens` would not be refused, 0 when they would not be now.

        `coming`: tokens that are not queued yet and will be before these.
        """
        with self._lock:
            return self._excess_s(lane, tokens, {backend: coming} if coming else {})

    def submit(
        self,
        backend: Backend,
        texts: Sequence[TokenIds],
        *,
        dimensions: int,
        lane: Lane,
        when_full: WhenFull = "refuse",
        timeout_s: float | None = None,
    ) -> Future[Vectors]:
        """Queue all texts or none; the future gives (len(texts), dimensions) float32 in order.

        Cancel the future to drop what has not run yet; after `timeout_s` that is done, with an
        error. Raises OverloadedError as `when_full` says, and ModelError for a text that the
        backend cannot take.
        """
        rows: Vectors = np.empty((len(texts), dimensions), dtype=np.float32)
        now = time.monotonic()
        deadline_s = None if timeout_s is None else now + timeout_s
        request = EmbedRequest(backend, rows, lane, deadline_s=deadline_s)
        if not texts:
            request.future.set_result(rows)
            return request.future
        buckets = [backend.bucket(len(ids)) for ids in texts]
        with self._lock:
            self._admit(lane, sum(buckets), when_full)
            for row, (ids, bucket) in enumerate(zip(texts, buckets, strict=True)):
                self._lanes.add(Entry(self._order, request, row, ids, bucket, now))
                self._order += 1
            self._work_came.notify(len(texts))
        return request.future

    def close(self, timeout_s: float = 10) -> None:
        """Refuse new work, finish what is queued within `timeout_s`, fail the rest."""
        with self._lock:
            self._is_closed = True
            self._work_came.notify_all()
            self._room_came.notify_all()
        self._workers.close(timeout_s)
        with self._lock:
            left = self._workers.running()
            while self._lanes:
                left += self._lanes.take()
        for entry in left:
            entry.request.fail(OverloadedError("The server stopped."))

    def _admit(self, lane: Lane, tokens: int, when_full: WhenFull) -> None:
        """Return when there is room for `tokens`; raise OverloadedError when there will be none."""
        is_patient = when_full == "wait"
        self._patient += is_patient
        try:
            while is_patient and not self._is_closed and self._excess_s(lane, tokens) > 0:
                self._room_came.wait()
        finally:
            self._patient -= is_patient
        if self._is_closed:
            raise OverloadedError("The server is stopping; send the request again later.")
        if when_full == "refuse" and (excess_s := self._excess_s(lane, tokens)) > 0:
            raise busy(excess_s)

    def _excess_s(self, lane: Lane, tokens: int, coming: Mapping[Backend, int] = {}) -> float:
        """Return how long until there is room; a request larger than all of it waits for none."""
        waiting = dict(self._lanes.waiting(lane))
        for backend, more in coming.items():
            waiting[backend] = waiting.get(backend, 0) + more
        waiting_tokens = sum(waiting.values())
        if waiting_tokens == 0:
            return 0.0
        run_s = sum(self._throughput.seconds(*item) for item in waiting.items())
        waiting_s = run_s / self.workers * self._lanes.slowdown(lane)
        token_s = max(waiting_s / waiting_tokens, 1e-6)
        excess_tokens = waiting_tokens + tokens - self._queue_tokens
        return max(waiting_s - self._queue_s, excess_tokens * token_s)

    def _take(self, worker: Worker) -> list[Entry]:
        """Wait for work and take it; an empty list means: closed and drained."""
        with self._lock:
            while True:
                while not self._lanes:
                    if self._is_closed:
                        return []
                    self._work_came.wait()
                taken = self._lanes.take(worker.last)
                worker.last = shape_of(taken)
                if self._patient:
                    self._room_came.notify_all()
                # Dropped before it costs compute: nobody waits for these any more.
                if live := [entry for entry in taken if _is_awaited(entry)]:
                    worker.is_alone = not self._lanes and not self._workers.running()
                    self._expect(worker, live)
                    return live
                # Else a worker that waits keeps the model of requests that are over in memory.
                del taken

    def _expect(self, worker: Worker, batch: list[Entry]) -> None:
        """Note what a worker runs, and when it should be done."""
        usual_s = self._throughput.seconds(batch[0].request.backend, run_tokens(batch))
        patience_s = max(self._worker_timeout_s, _PATIENCE * usual_s)
        worker.batch, worker.due_s = batch, time.monotonic() + patience_s

    def _run(self, worker: Worker, batch: list[Entry]) -> None:
        """Run one micro-batch; when it fails, queue its members again, each for itself."""
        started = time.monotonic()
        outcome = _attempt(batch, is_alone=worker.is_alone)
        try:
            self._finish(worker, batch, outcome, started)
        finally:
            # The frames of a failure lead back to this one, a cycle that would keep the model.
            del outcome

    def _finish(
        self, worker: Worker, batch: list[Entry], outcome: "Vectors | Exception", started: float
    ) -> None:
        """Deliver what a run gave, or deal with its failure."""
        run_s = time.monotonic() - started
        with self._lock:
            if worker.is_given_up:
                return  # its texts were queued again, or failed
            worker.batch, worker.due_s = [], None
            if not isinstance(outcome, Exception):
                self._throughput.record(batch[0].request.backend, run_tokens(batch), run_s)
            elif len(batch) > 1:
                self._queue_alone(batch)
                return
        if isinstance(outcome, Exception):
            _fail(batch[0], outcome)
            return
        for entry, row in zip(batch, outcome, strict=True):
            entry.request.deliver(entry.row, row)
        tokens = sum(entry.bucket_tokens for entry in batch)
        waited_s = started - min(entry.queued_s for entry in batch)
        self._report(BatchReport(batch[0].request.lane, len(batch), tokens, waited_s, run_s))

    def _queue_alone(self, batch: list[Entry]) -> None:
        """Queue texts again, none to be run with another: one of them may be what is wrong."""
        for entry in batch:
            self._lanes.add(replace(entry, runs_alone=True))
        self._work_came.notify_all()

    def _give_up(self, worker: Worker) -> None:
        """Queue what a lost worker had again, each text for itself; one that it had alone fails."""
        batch, worker.batch, worker.due_s = worker.batch, [], None
        if len(batch) > 1:
            self._queue_alone(batch)
        elif batch:
            _fail(batch[0], ModelError("the engine did not come back from it"))


def _attempt(batch: list[Entry], *, is_alone: bool) -> "Vectors | Exception":
    """Run a batch and return its rows, or why there are none."""
    try:
        return _rows(batch, is_alone=is_alone)
    except Exception as failure:
        return failure


def _rows(batch: list[Entry], *, is_alone: bool) -> Vectors:
    request = batch[0].request
    rows = request.backend.run([entry.ids for entry in batch], is_alone=is_alone)
    if rows.shape != (len(batch), request.dimensions):
        raise ModelError(
            f"The model gave {rows.shape} numbers for {len(batch)} texts of "
            f"{request.dimensions} dimensions; its manifest does not fit its graph."
        )
    return rows


def _is_awaited(entry: Entry) -> bool:
    request = entry.request
    if request.deadline_s is not None and time.monotonic() > request.deadline_s:
        request.fail(OverloadedError("The request waited longer than its time limit."))
    return not request.future.done()


def _fail(entry: Entry, error: Exception) -> None:
    logger.error("one text of %d tokens failed in the engine", len(entry.ids), exc_info=error)
    reason = error.message if isinstance(error, EmbedserveError) else repr(error)
    entry.request.fail(TextFailedError(reason, [entry.row]))
