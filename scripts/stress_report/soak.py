"""Soak: texts of every length and script, for as long as one likes; does memory grow?"""

import asyncio
import statistics
import time
from collections import Counter

from embedserve.services.memory import resident_bytes
from scripts.serving import Server
from scripts.stress_report.client import ROUTES, Connection
from scripts.stress_report.processes import family
from scripts.stress_report.targets import Figures, Sizes
from scripts.stress_report.texts import Texts

_CLIENTS = 4
_ANSWER_S = 60


async def soak(server: Server, sizes: Sizes) -> Figures:
    """Send requests of any kind for a while; memory is compared from the end of the warm-up on."""
    counts: Counter[str] = Counter()
    end_s = time.perf_counter() + sizes.soak_s
    clients = [
        asyncio.create_task(_work(Texts(10 + number), server.port, end_s, counts))
        for number in range(_CLIENTS)
    ]
    await asyncio.sleep(sizes.soak_warm_s)
    samples = []
    while time.perf_counter() < end_s:
        samples.append(sum(map(_resident_bytes, family(server.pid))))
        await asyncio.sleep(sizes.soak_every_s)
    await asyncio.gather(*clients)
    return {
        "requests": counts["requests"],
        "texts/s": counts["texts"] / sizes.soak_s,
        "refused": counts["refused"],
        "neither answered nor refused": counts["wrong"],
        "memory after the warm-up, MB": samples[0] / 1e6,
        "memory at most, MB": max(samples) / 1e6,
        "memory, % more at the end": growth_percent(samples),
    }


def growth_percent(samples: list[int]) -> float:
    """Return by how much the last tenth of the samples lies above the first tenth.

    >>> growth_percent([100, 100, 90, 90, 110])
    10.0
    """
    tenth = max(1, len(samples) // 10)
    first, last = statistics.median(samples[:tenth]), statistics.median(samples[-tenth:])
    return (last - first) * 100 / first


async def _work(texts: Texts, port: int, end_s: float, counts: Counter[str]) -> None:
    connection = Connection(port, timeout_s=_ANSWER_S)
    while time.perf_counter() < end_s:
        batch = texts.mixed()
        answer = await connection.embed(ROUTES[counts["requests"] % 2], batch)
        counts["requests"] += 1
        counts["texts"] += len(batch)
        counts["refused"] += answer.is_refusal
        counts["wrong"] += answer.status != 200 and not answer.is_refusal
    connection.close()


def _resident_bytes(pid: int) -> int:
    try:
        return resident_bytes(pid)
    except OSError:
        return 0  # it ended while we looked
