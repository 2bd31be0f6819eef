"""Overload: ten times as much as the server can do, and how it refuses what is too much."""

import asyncio
import time
from dataclasses import dataclass

from embedserve.services.memory import resident_bytes
from scripts.serving import Server
from scripts.stress_report.client import LATE, Answer, Pool, Route, percentile_ms
from scripts.stress_report.processes import (
    most_open_files,
    open_files,
    watched_memory,
)
from scripts.stress_report.targets import Figures
from scripts.stress_report.texts import Texts

SHORT_QUEUE = {"EMBEDSERVE_QUEUE_S": "1"}
_TIMES = 10
_CLIENTS = 16
_IDLE_REQUESTS = 20
# Longer than any queue here may be: both lanes with two minutes of work each, and some.
_ANSWER_S = 400
_SPARE_FILES = 200
_NORMAL_TIMES = 2
_NORMAL_IN_A_ROW = 3
_RECOVERY_S = 20


@dataclass(frozen=True)
class Kind:
    """One kind of request."""

    route: Route
    texts: int
    tokens: int


# Small ones take the one lane, the others the other.
KINDS = (
    Kind("/api/embed", 1, 256),
    Kind("/v1/embeddings", 1, 256),
    Kind("/api/embed", 8, 128),
    Kind("/v1/embeddings", 8, 128),
)
QUERY = Kind("/api/embed", 1, 16)


@dataclass(frozen=True)
class Offered:
    """What was sent by the clock, and what came of it."""

    answers: list[Answer]
    per_s: float
    late_ms: float
    """How far the sender, which shares this machine, lay behind its clock in the end."""
    woken_ms: float
    """How late the sender was woken to send, p99: so late it sees answers, too."""
    over_s: float
    """How long after the last request the last answer came."""


class Sender:
    """Texts and connections to send them over."""

    def __init__(self, port: int) -> None:
        self._texts = Texts(2)
        self._pool = Pool(port, timeout_s=_ANSWER_S)

    async def send(self, kind: Kind) -> Answer:
        """Send one request of a kind and wait for its answer."""
        return await self._pool.embed(kind.route, self._texts.make(kind.texts, kind.tokens))

    def close(self) -> None:
        """Leave."""
        self._pool.close()


async def overload(server: Server, seconds: float) -> Figures:
    """Offer ten times the capacity for `seconds`."""
    sender = Sender(server.port)
    idle = [await sender.send(QUERY) for _ in range(_IDLE_REQUESTS)]
    idle_ms = percentile_ms(idle, 50)
    capacity = await _capacity(sender, max(1.0, seconds / 5))
    before, memory = resident_bytes(server.pid), list[int]()
    # Those that are refused leave early, so fewer than all may do.
    files = min(round(_TIMES * capacity * seconds) + _SPARE_FILES, most_open_files())
    with open_files(files):
        async with watched_memory(server.pid, memory, every_s=0.1):
            offered = await _offer(sender, _TIMES * capacity, seconds)
        recovery_s = await _recovery_s(sender, idle_ms)
    sender.close()
    return {
        "capacity, requests/s": capacity,
        "offered, times capacity": offered.per_s / capacity,
        "sender behind its clock, ms": offered.late_ms,
        "sender woken late, p99, ms": offered.woken_ms,
        **_answer_figures(offered),
        "memory before, MB": before / 1e6,
        "memory, MB more at the peak": (max(memory) - before) / 1e6,
        "memory, MB more afterwards": (memory[-1] - before) / 1e6,
        "idle p50 before, ms": idle_ms,
        "back to normal, s": recovery_s,
    }


def _answer_figures(offered: Offered) -> Figures:
    answered = [answer for answer in offered.answers if answer.status == 200]
    refused = [answer for answer in offered.answers if answer.is_refusal]
    silent = [answer for answer in offered.answers if answer.status < 0]
    others = len(offered.answers) - len(answered) - len(refused) - len(silent)
    return {
        "answered": len(answered),
        "refused": len(refused),
        "neither answered nor refused": len(silent),
        "of these, no answer in time": sum(answer.status == LATE for answer in silent),
        "answers of another kind": others,
        "refusal p50, ms": percentile_ms(refused, 50),
        "refusal p99, ms": percentile_ms(refused, 99),
        "refusal max, ms": percentile_ms(refused, 100),
        "answer p99, ms": percentile_ms(answered, 99),
        "last answer after the last request, s": offered.over_s,
    }


async def _capacity(sender: Sender, seconds: float) -> float:
    """Return the requests per second that are answered when each client waits for its answer."""
    end_s = time.perf_counter() + seconds

    async def client(number: int) -> int:
        count = 0
        while time.perf_counter() < end_s:
            answer = await sender.send(KINDS[(number + count) % len(KINDS)])
            count += answer.status == 200
        return count

    began = time.perf_counter()
    counts = await asyncio.gather(*(client(number) for number in range(_CLIENTS)))
    return sum(counts) / (time.perf_counter() - began)


async def _offer(sender: Sender, per_s: float, seconds: float) -> Offered:
    """Send by the clock, whatever the answers do."""
    began, count, late_s = time.perf_counter(), round(per_s * seconds), 0.0
    tasks, woken_s = [], []
    for number in range(count):
        late_s = time.perf_counter() - began - number / per_s
        if late_s > seconds:
            break  # the sender is too slow by half; what was sent counts
        await asyncio.sleep(max(0.0, -late_s))
        woken_s.append(time.perf_counter() - began - number / per_s)
        tasks.append(asyncio.create_task(sender.send(KINDS[number % len(KINDS)])))
    sending_s = time.perf_counter() - began
    answers = await asyncio.gather(*tasks)
    over_s = time.perf_counter() - began - sending_s
    woken_ms = sorted(woken_s)[len(woken_s) * 99 // 100] * 1000
    return Offered(answers, len(tasks) / sending_s, max(0.0, late_s) * 1000, woken_ms, over_s)


async def _recovery_s(sender: Sender, idle_ms: float) -> float:
    """Return after how long some queries in a row take what they take on an idle server."""
    began, quick = time.perf_counter(), 0
    first_s = 0.0
    while time.perf_counter() - began < _RECOVERY_S:
        answer = await sender.send(QUERY)
        is_normal = answer.status == 200 and answer.seconds * 1000 <= _NORMAL_TIMES * idle_ms
        if quick == 0:
            first_s = answer.sent_s - began
        quick = quick + 1 if is_normal else 0
        if quick == _NORMAL_IN_A_ROW:
            return first_s
    return float("nan")
