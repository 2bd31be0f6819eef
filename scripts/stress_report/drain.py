"""Drain: the server is told to stop while requests are under way."""

import asyncio
import time
from dataclasses import dataclass, field

from scripts.serving import Server
from scripts.stress_report.client import Answer, Connection, Route
from scripts.stress_report.processes import family, is_running
from scripts.stress_report.targets import Figures
from scripts.stress_report.texts import Texts

_BOUND_S = 60
_ANSWER_S = 60
# A request that meets the signal on its way may find the door shut; HTTP has no word for that.
_ON_ITS_WAY_S = 0.25
_CHILDREN_S = 5


@dataclass(frozen=True)
class Clients:
    """Clients that each send a request as soon as the one before is answered."""

    route: Route
    count: int
    texts: int
    tokens: int


# The bulk requests take long enough to be under way whenever the signal comes.
SHORT_QUEUE = (Clients("/api/embed", 16, 1, 16), Clients("/v1/embeddings", 4, 64, 128))
# More work than the ten seconds that the server gives what it has in hand.
LONG_QUEUE = (Clients("/api/embed", 16, 1, 16), Clients("/v1/embeddings", 40, 400, 128))


@dataclass
class Crowd:
    """All clients together, and what they got."""

    port: int
    answers: list[Answer] = field(default_factory=list)
    _texts: Texts = field(default_factory=lambda: Texts(3))

    async def work(self, clients: Clients) -> None:
        """Send until the server answers no more."""
        connection = Connection(self.port, timeout_s=_ANSWER_S)
        answer = None
        while answer is None or answer.status == 200:
            texts = self._texts.make(clients.texts, clients.tokens)
            answer = await connection.embed(clients.route, texts)
            self.answers.append(answer)
        connection.close()


async def drain(server: Server, loads: tuple[Clients, ...], seconds: float) -> Figures:
    """Let clients work for `seconds`, send SIGTERM, and see what becomes of everything."""
    crowd = Crowd(server.port)
    tasks = [
        asyncio.create_task(crowd.work(clients)) for clients in loads for _ in range(clients.count)
    ]
    await asyncio.sleep(seconds)
    processes = family(server.pid)
    told_s = time.perf_counter()
    server.process.terminate()
    exit_status = await asyncio.to_thread(server.process.wait, _BOUND_S)
    ended_s = time.perf_counter() - told_s
    await asyncio.gather(*tasks)
    under_way = [answer for answer in crowd.answers if answer.sent_s < told_s - _ON_ITS_WAY_S]
    after = [one for one in under_way if one.sent_s + one.seconds > told_s]
    return {
        "answered": sum(answer.status == 200 for answer in under_way),
        "under way at the signal": len(after),
        "of these, answered": sum(answer.status == 200 for answer in after),
        "of these, refused": sum(_is_refusal(answer) for answer in after),
        "neither answered nor refused": sum(answer.status < 0 for answer in under_way),
        "answers of another kind": sum(
            answer.status >= 0 and answer.status != 200 and not _is_refusal(answer)
            for answer in crowd.answers
        ),
        "ended after, s": ended_s,
        "exit status": exit_status,
        "processes left": await asyncio.to_thread(_left, processes),
    }


def _is_refusal(answer: Answer) -> bool:
    return answer.status == (503 if answer.route == "/api/embed" else 429)


def _left(processes: list[int]) -> int:
    """Return how many of the processes are still there after a moment."""
    deadline = time.perf_counter() + _CHILDREN_S
    while (left := sum(map(is_running, processes))) and time.perf_counter() < deadline:
        time.sleep(0.05)
    return left
