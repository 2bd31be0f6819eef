"""The threads that run batches: watched, and replaced when they die or do not come back.

What a batch is and where it comes from is given from outside.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event, RLock, Thread

from embedserve.engine.lanes import Shape
from embedserve.engine.requests import Entry

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Worker:
    """One thread's place; another thread takes it over when this one is given up."""

    number: int
    batch: list[Entry] = field(default_factory=list)
    """What it runs now; empty while it waits."""
    due_s: float | None = None
    """When the batch should be back, of `time.monotonic`."""
    is_alone: bool = False
    """Whether nothing else ran or waited when it took the batch."""
    last: Shape | None = None
    """What the texts of the batch before shared."""
    is_given_up: bool = False


class Workers:
    """A fixed number of threads that take batches until they are told to end.

    `take` waits for a batch and returns an empty list to end a thread; it sets `worker.batch` and
    `worker.due_s` under `lock`. `run` runs it and clears them, under `lock` too. `give_up` gets a
    worker whose batch did not come back in time, and is called under `lock`.
    """

    def __init__(
        self,
        count: int,
        lock: RLock,
        *,
        take: Callable[[Worker], list[Entry]],
        run: Callable[[Worker, list[Entry]], None],
        give_up: Callable[[Worker], None],
        check_every_s: float,
    ) -> None:
        self.restarts = 0
        self._lock = lock
        self._check_every_s = check_every_s
        self._take = take
        self._run = run
        self._give_up = give_up
        self._closing = Event()
        self._workers: list[Worker] = []
        self._threads: list[Thread] = []
        for number in range(count):
            self._start(number)
        self._watcher = Thread(target=self._watch, name="embed-watch", daemon=True)
        self._watcher.start()

    @property
    def is_stuck(self) -> bool:
        """Tell whether every thread is overdue, so that nothing runs."""
        now = time.monotonic()
        return all(worker.due_s is not None and worker.due_s < now for worker in self._workers)

    def running(self) -> list[Entry]:
        """Return the texts that threads have now; needs `lock`."""
        return [entry for worker in self._workers for entry in worker.batch]

    def close(self, timeout_s: float) -> None:
        """Wait for the threads, all together `timeout_s` at most; `take` must end them."""
        self._closing.set()
        end = time.monotonic() + timeout_s
        for thread in [*self._threads, self._watcher]:
            thread.join(max(0.0, end - time.monotonic()))

    def _start(self, number: int) -> None:
        worker = Worker(number)
        thread = Thread(
            target=self._work, args=(worker,), name=f"embed-{worker.number}", daemon=True
        )
        self._workers = [other for other in self._workers if other.number != number] + [worker]
        self._threads = [other for other in self._threads if other.is_alive()] + [thread]
        thread.start()

    def _work(self, worker: Worker) -> None:
        try:
            while not worker.is_given_up and (batch := self._take(worker)):
                self._run(worker, batch)
                # Else a thread that waits keeps the graph of its last batch in memory.
                del batch
        except BaseException:
            # Whatever it was, the place is filled again; what it ran is dealt with as overdue.
            logger.exception("worker %d died", worker.number)
            with self._lock:
                self._replace(worker)

    def _watch(self) -> None:
        # Looks from time to time: to be told of each batch would cost every batch a thread switch.
        while not self._closing.wait(self._check_every_s):
            now = time.monotonic()
            with self._lock:
                for worker in list(self._workers):
                    if worker.due_s is not None and worker.due_s <= now:
                        logger.error(
                            "worker %d did not come back from %d texts; another takes its place",
                            worker.number,
                            len(worker.batch),
                        )
                        self._replace(worker)

    def _replace(self, worker: Worker) -> None:
        if worker.is_given_up:
            return
        worker.is_given_up = True
        self.restarts += 1
        self._give_up(worker)
        if not self._closing.is_set():
            self._start(worker.number)
