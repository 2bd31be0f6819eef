"""What waits for a worker: two lanes, oldest first within each, small requests ahead of bulk.

Decides what runs next and knows nothing of threads.
"""

import time
from collections import deque
from collections.abc import Mapping

from embedserve.engine.backend import Backend
from embedserve.engine.requests import Entry
from embedserve.types import BatchTokens, Lane

# While both lanes wait, one batch in this many is bulk: queries stay quick, ingestion moves on.
BULK_TURN = 5

# Large runs are faster (512 tokens bring 8 % over 256 on mixed lengths, 1,024 bring 12 %), and who
# comes while they last waits for their end. So bulk work runs in small ones while small requests
# come, and for this long after.
QUIET_S = 2.0

# OpenVINO spends .6 to .9 ms on a run of another shape than the one before, as long as a query
# takes. In the bulk lane a worker therefore stays with one bucket while it lasts, but nobody waits
# longer for that than this.
STAY_S = 0.5
# In the small lane it stays with the number of texts, from this number on: four short texts run as
# fast for each as sixteen, but for a tenth.
STAY_TEXTS = 4


Group = tuple[int, int]  # (identity of the backend, bucket in tokens); alone: (-order, bucket)
Shape = tuple[Group, int]
"""What a run had: the group of its texts, and how many there were."""


def group_of(entry: Entry) -> Group:
    """Return what entries share that may run together."""
    identity = -1 - entry.order if entry.runs_alone else id(entry.request.backend)
    return identity, entry.bucket_tokens


def shape_of(batch: list[Entry]) -> Shape:
    """Return what another run must share to have the same shape."""
    return group_of(batch[0]), len(batch)


def _power_of_two(count: int) -> int:
    """Return the greatest power of two up to `count`.

    Engines that keep something for each shape get few of them, and what is left over is there for
    the next free worker: five texts run as four and one, on two cores at once.
    """
    return 1 << count.bit_length() - 1


class LaneQueue:
    """Entries of one lane by group; the group whose oldest entry waits longest goes first."""

    def __init__(self) -> None:
        self.tokens: dict[Backend, int] = {}
        """That wait for each backend, at the length at which they run."""
        self._groups: dict[Group, deque[Entry]] = {}

    def add(self, entry: Entry) -> None:
        """Queue one entry behind those of its group."""
        self._groups.setdefault(group_of(entry), deque()).append(entry)
        backend = entry.request.backend
        self.tokens[backend] = self.tokens.get(backend, 0) + entry.bucket_tokens

    def take_oldest(self, budget_tokens: int, last: Shape | None) -> list[Entry]:
        """Take the oldest entry, and others of its group up to the budget.

        No more than the run before had, though, if that was a good number of the same group.
        """
        key = self._oldest()
        fixed = self._fixed_texts(key)
        count = self._count(key, budget_tokens)
        if not fixed and last and last[0] == key and STAY_TEXTS <= last[1] <= count:
            count = last[1]
        return self._take(key, count)

    def take_near(self, budget_tokens: int, last: Shape | None) -> list[Entry]:
        """Take from the group of the run before, unless the oldest entry waits for too long."""
        key = self._oldest()
        if last and last[0] in self._groups:
            waits_s = time.monotonic() - self._groups[key][0].queued_s
            key = last[0] if waits_s < STAY_S else key
        return self._take(key, self._count(key, budget_tokens))

    def _oldest(self) -> Group:
        return min(self._groups, key=lambda key: self._groups[key][0].order)

    def _fixed_texts(self, key: Group) -> int | None:
        return self._groups[key][0].request.backend.fixed_texts(key[1])

    def _count(self, key: Group, budget_tokens: int) -> int:
        waiting = len(self._groups[key])
        if fixed := self._fixed_texts(key):
            return min(waiting, fixed)
        return _power_of_two(min(waiting, max(1, budget_tokens // max(1, key[1]))))

    def _take(self, key: Group, count: int) -> list[Entry]:
        group = self._groups[key]
        taken = [group.popleft() for _ in range(count)]
        if not group:
            del self._groups[key]
        backend = taken[0].request.backend
        self.tokens[backend] -= sum(entry.bucket_tokens for entry in taken)
        if not self.tokens[backend]:
            del self.tokens[backend]  # else a model that was removed stays in memory
        return taken

    def __bool__(self) -> bool:
        return bool(self._groups)


class Lanes:
    """Both lanes. Not for several threads at once."""

    def __init__(self, batch_tokens: BatchTokens, *, workers: int) -> None:
        self._queues: dict[Lane, LaneQueue] = {"small": LaneQueue(), "bulk": LaneQueue()}
        self._small_turns = 0
        self._batch_tokens = batch_tokens
        self._workers = workers
        self._small_came_s = -QUIET_S

    def add(self, entry: Entry) -> None:
        """Queue one entry in its request's lane."""
        if entry.request.lane == "small":
            self._small_came_s = entry.queued_s
        self._queues[entry.request.lane].add(entry)

    def take(self, last: Shape | None = None) -> list[Entry]:
        """Take what runs next: entries of one group, one at least.

        `last` is what the same worker ran before: an engine is faster when shapes stay.
        """
        small, bulk = self._queues["small"], self._queues["bulk"]
        if small and (not bulk or self._small_turns < BULK_TURN - 1):
            self._small_turns += 1
            return small.take_oldest(self._batch_tokens.usual, last)
        self._small_turns = 0
        return bulk.take_near(self._bulk_budget(), last)

    def _bulk_budget(self) -> int:
        if time.monotonic() - self._small_came_s < QUIET_S:
            return self._batch_tokens.usual
        # Smaller towards the end of the queue, so that no worker waits long for another's last.
        share = sum(self.waiting("bulk").values()) // (2 * self._workers)
        return max(self._batch_tokens.usual, min(share, self._batch_tokens.bulk))

    def slowdown(self, lane: Lane) -> float:
        """Return how many times as long a lane takes as it would without the other.

        Taken as if the other, where anything waits in it, went on to be full.
        """
        other: Lane = "bulk" if lane == "small" else "small"
        if not self._queues[other]:
            return 1.0
        return float(BULK_TURN) if lane == "bulk" else BULK_TURN / (BULK_TURN - 1)

    def waiting(self, lane: Lane) -> Mapping[Backend, int]:
        """Return how many tokens wait in a lane, by backend."""
        return self._queues[lane].tokens

    def __bool__(self) -> bool:
        return any(self._queues.values())
