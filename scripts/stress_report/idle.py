"""Idle: what a server costs that has embedded and has nothing to do."""

import asyncio
import time

from scripts.serving import Server
from scripts.stress_report.client import ROUTES, Connection
from scripts.stress_report.processes import cpu_s, family
from scripts.stress_report.targets import Figures
from scripts.stress_report.texts import Texts

# What comes after a start, such as looking at the vector index, is over by then.
_SETTLE_S = 3


async def idle(server: Server, seconds: float) -> Figures:
    """Measure the processor time of the server and all its children over `seconds`."""
    connection = Connection(server.port, timeout_s=60)
    for route in ROUTES:
        answer = await connection.embed(route, Texts(4).make(8, 64))
        if answer.status != 200:
            raise SystemExit(f"{route} answered {answer.status}: {answer.body[:300]!r}")
    connection.close()
    await asyncio.sleep(_SETTLE_S)
    processes = family(server.pid)
    before, began = {pid: cpu_s(pid) for pid in processes}, time.perf_counter()
    await asyncio.sleep(seconds)
    passed_s = time.perf_counter() - began
    used = {pid: cpu_s(pid) - before[pid] for pid in processes}
    return {
        "processes": len(processes),
        "CPU, % of a core": sum(used.values()) * 100 / passed_s,
        "of these, the server itself": used[server.pid] * 100 / passed_s,
    }
