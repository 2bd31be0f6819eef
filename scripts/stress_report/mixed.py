"""Mixed: a query five times a second while two clients send bulk work, and what each costs."""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field

from scripts.serving import Server
from scripts.stress_report.client import Answer, Connection, Pool, percentile_ms
from scripts.stress_report.targets import Figures
from scripts.stress_report.texts import Texts

_QUERY_TOKENS, _QUERIES_PER_S = 16, 5
_BULK_TEXTS, _BULK_TOKENS, _BULK_CLIENTS = 64, 128, 2
_ANSWER_S = 60
# Bulk batches are larger once no query came for two seconds; before that is over, nothing counts.
_SETTLE_S = 2.5


@dataclass
class Part:
    """What one part of the scenario gave."""

    queries: list[Answer] = field(default_factory=list)
    bulk: list[Answer] = field(default_factory=list)
    bulk_per_s: float = 0.0


class Mix:
    """Both kinds of clients."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._texts = Texts(5)

    async def part(self, seconds: float, *, has_queries: bool, has_bulk: bool) -> Part:
        """Run one part."""
        part, tasks = Part(), list[Awaitable[None]]()
        if has_queries:
            tasks.append(self._query(part.queries, seconds))
        if has_bulk:
            tasks.append(self._send_bulk(part, seconds))
        await asyncio.gather(*tasks)
        return part

    async def _query(self, answers: list[Answer], seconds: float) -> None:
        pool, began, tasks = Pool(self._port, timeout_s=_ANSWER_S), time.perf_counter(), []
        for number in range(round(seconds * _QUERIES_PER_S)):
            due_s = began + number / _QUERIES_PER_S
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            text = self._texts.make(1, _QUERY_TOKENS)
            tasks.append(asyncio.create_task(pool.embed("/api/embed", text)))
        answers += await asyncio.gather(*tasks)
        pool.close()

    async def _send_bulk(self, part: Part, seconds: float) -> None:
        began = time.perf_counter()

        async def client() -> None:
            connection = Connection(self._port, timeout_s=_ANSWER_S)
            while time.perf_counter() - began < seconds:
                texts = self._texts.make(_BULK_TEXTS, _BULK_TOKENS)
                part.bulk.append(await connection.embed("/v1/embeddings", texts))
            connection.close()

        await asyncio.gather(*(client() for _ in range(_BULK_CLIENTS)))
        part.bulk_per_s = len(part.bulk) * _BULK_TEXTS / (time.perf_counter() - began)


async def mixed(server: Server, seconds: float) -> Figures:
    """Measure queries alone, bulk alone and both; bulk in two turns, each part `seconds` long."""
    mix = Mix(server.port)
    await mix.part(1, has_queries=True, has_bulk=True)  # warm up
    idle = await mix.part(seconds, has_queries=True, has_bulk=False)
    alone, both = list[Part](), list[Part]()
    for parts, has_queries in ((alone, False), (both, True), (both, True), (alone, False)):
        if not has_queries:
            await asyncio.sleep(_SETTLE_S)
        parts.append(await mix.part(seconds / 2, has_queries=has_queries, has_bulk=True))
    queries = [answer for part in both for answer in part.queries]
    sent = [*idle.queries, *queries, *(one for part in (*alone, *both) for one in part.bulk)]
    alone_per_s = sum(part.bulk_per_s for part in alone) / len(alone)
    both_per_s = sum(part.bulk_per_s for part in both) / len(both)
    return {
        "not answered with 200": sum(answer.status != 200 for answer in sent),
        "queries": len(queries),
        "query p50 alone, ms": percentile_ms(idle.queries, 50),
        "query p99 alone, ms": percentile_ms(idle.queries, 99),
        "query p50 beside bulk, ms": percentile_ms(queries, 50),
        "query p99 beside bulk, ms": percentile_ms(queries, 99),
        "bulk alone, texts/s": alone_per_s,
        "bulk with queries, texts/s": both_per_s,
        "bulk speed with queries, share": both_per_s / alone_per_s,
    }
