"""The scheduler against the bare engine: the same texts, the same graph, the same threads.

Bare means: as many threads as the scheduler has workers, each with whole batches that were put
together beforehand, of one bucket each. Nothing but the engine's own work is left.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from embedserve.engine.backend import Backend
from embedserve.engine.scheduler import Scheduler
from embedserve.types import TokenIds, Vectors

LENGTHS = {
    "16": [16] * 256,
    "128": [128] * 64,
    "256": [256] * 32,
    "mixed": list(range(8, 251)),
}
"""Tokens of the texts of one turn, by name."""

GROUP_TOKENS = 1024
"""Of a batch, as the scheduler makes them while nobody queries."""
REQUEST_TEXTS = 64
# Enough that no worker waits: many batches for each, however long the texts are.
_IN_FLIGHT_TOKENS = 65_536


@dataclass(frozen=True)
class Engine:
    """One loaded graph and the scheduler in front of it."""

    backend: Backend
    scheduler: Scheduler
    dimensions: int


@dataclass(frozen=True)
class Speeds:
    """Tokens per second of the same work."""

    bare: float
    scheduled: float


class Race:
    """One piece of work, prepared for both ways."""

    def __init__(self, engine: Engine, texts: Sequence[TokenIds]) -> None:
        self._engine = engine
        self.tokens = sum(len(ids) for ids in texts)
        """Without what they are padded with."""
        self._groups = groups(engine.backend, texts)
        firsts = range(0, len(texts), REQUEST_TEXTS)
        self._requests = [texts[first : first + REQUEST_TEXTS] for first in firsts]

    def bare(self) -> float:
        """Return tokens per second of the engine alone."""
        left = deque(self._groups)
        failures: list[BaseException] = []

        def work() -> None:
            try:
                while left:
                    self._engine.backend.run(left.popleft())
            except IndexError:
                pass  # another thread took the last one
            except BaseException as error:  # raised again by the thread that waits
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(self._engine.scheduler.workers)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return self.tokens / (time.perf_counter() - started)

    def scheduled(self) -> float:
        """Return tokens per second through the scheduler, several requests in flight."""
        pending: deque[Future[Vectors]] = deque()
        in_flight = max(4, _IN_FLIGHT_TOKENS * len(self._requests) // self.tokens)
        started = time.perf_counter()
        for texts in self._requests:
            if len(pending) >= in_flight:
                pending.popleft().result()
            pending.append(self._submit(texts))
        for future in pending:
            future.result()
        return self.tokens / (time.perf_counter() - started)

    def _submit(self, texts: Sequence[TokenIds]) -> Future[Vectors]:
        engine = self._engine
        return engine.scheduler.submit(
            engine.backend, texts, dimensions=engine.dimensions, lane="bulk", when_full="wait"
        )


def groups(backend: Backend, texts: Sequence[TokenIds]) -> list[list[TokenIds]]:
    """Put texts of one bucket together, up to GROUP_TOKENS; long ones first, so all end at once."""
    by_bucket: dict[int, list[TokenIds]] = {}
    for ids in texts:
        by_bucket.setdefault(backend.bucket(len(ids)), []).append(ids)
    found = []
    for bucket in sorted(by_bucket, reverse=True):
        alike, count = by_bucket[bucket], max(1, GROUP_TOKENS // bucket)
        found += [alike[first : first + count] for first in range(0, len(alike), count)]
    return found


def prepare(
    engine: Engine, lengths: Sequence[int], make: Callable[[int], TokenIds], seconds: float
) -> Race:
    """Make work for about `seconds`, in both ways warm; `make` gives a text of that many tokens."""
    texts = [make(tokens) for tokens in lengths]
    once = Race(engine, texts)
    once.scheduled()
    once.bare()
    times = max(1, round(seconds * once.bare() / once.tokens))
    many = [*texts, *(make(tokens) for _ in range(times - 1) for tokens in lengths)]
    random.Random(3).shuffle(many)
    race = Race(engine, many)
    race.scheduled()  # batches of other sizes than before are new shapes to the engine
    return race


def compare(race: Race) -> Speeds:
    """Time both ways, each first once and last once."""
    bare, scheduled = race.bare(), race.scheduled()
    scheduled, bare = scheduled + race.scheduled(), bare + race.bare()
    return Speeds(bare / 2, scheduled / 2)
