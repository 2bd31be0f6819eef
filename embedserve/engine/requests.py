"""Texts that came together, and the one answer that they get. Queues and runs nothing."""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from math import ceil
from threading import Lock
from typing import Literal

from embedserve.engine.backend import Backend
from embedserve.errors import BUSY, EmbedserveError, OverloadedError
from embedserve.types import Lane, TokenIds, Vectors

WhenFull = Literal["refuse", "wait", "queue"]
"""What becomes of texts that find their lane full; `queue` is for what was let in before."""


class EmbedRequest:
    """One caller's texts; `future` is resolved once: rows, an error, or cancelled."""

    def __init__(
        self, backend: Backend, rows: Vectors, lane: Lane, *, deadline_s: float | None
    ) -> None:
        self.backend = backend
        self.lane = lane
        self.deadline_s = deadline_s
        """Of `time.monotonic`; nobody waits for the answer after it."""
        self.future: Future[Vectors] = Future()
        self.dimensions = rows.shape[1]
        self._rows = rows
        self._remaining = len(rows)
        self._lock = Lock()

    def deliver(self, row: int, vector: Vectors) -> None:
        """Take one text's vector; the last one resolves the future."""
        self._rows[row] = vector
        with self._lock:
            self._remaining -= 1
            if self._remaining == 0 and self._is_wanted():
                self.future.set_result(self._rows)

    def fail(self, error: EmbedserveError) -> None:
        """Resolve the future with an error, unless it is resolved or cancelled."""
        with self._lock:
            if self._is_wanted():
                self.future.set_exception(error)

    def _is_wanted(self) -> bool:
        # The caller may cancel at any moment; the second call settles who was first.
        return not self.future.done() and self.future.set_running_or_notify_cancel()


@dataclass(frozen=True)
class Entry:
    """One text of a request."""

    order: int
    """Rises with each text that is queued."""
    request: EmbedRequest
    row: int
    ids: TokenIds
    bucket_tokens: int
    """The length at which it runs."""
    queued_s: float
    """When it was queued, of `time.monotonic`."""
    runs_alone: bool = False
    """Whether it was among texts that did not come back; then none shares its next run."""


def busy(excess_s: float) -> OverloadedError:
    """Return the refusal of what would find room after `excess_s`."""
    return OverloadedError(BUSY, retry_after_s=max(1, ceil(excess_s)))


def run_tokens(batch: Sequence[Entry]) -> int:
    """Return how many tokens the engine computes for a batch of one bucket, spare texts included.

    What a run costs goes by these.
    """
    bucket = batch[0].bucket_tokens
    fixed = batch[0].request.backend.fixed_texts(bucket)
    texts = len(batch) if fixed is None else -(-len(batch) // fixed) * fixed
    return texts * bucket
