"""Flood: thousands of one-text requests at the same moment, each vector as in one batch."""

import asyncio
import time

import numpy as np

from embedserve.types import Vectors
from scripts.serving import Server
from scripts.stress_report.client import ROUTES, Connection, Route
from scripts.stress_report.processes import open_files
from scripts.stress_report.targets import Figures
from scripts.stress_report.texts import Texts

# Without a cache: each vector must have been computed among whatever came with it.
SETTINGS = {"EMBEDSERVE_CACHE_BYTES": "0"}
_TOKENS = 16
_ANSWER_S = 120
# Connections that are made at once; the system queues no more than some thousands of them.
_OPENING = 500
_SPARE_FILES = 100


async def flood(server: Server, requests: int) -> Figures:
    """Send `requests` different texts at once over as many connections, on each route."""
    texts = Texts(1).make(requests, _TOKENS)
    alone = Connection(server.port, timeout_s=_ANSWER_S)
    answer = await alone.embed("/v1/embeddings", texts)
    alone.close()
    if answer.status != 200:
        raise SystemExit(f"The batch was answered with {answer.status}: {answer.body[:300]!r}")
    figures: Figures = {}
    with open_files(requests + _SPARE_FILES):
        for route in ROUTES:
            figures |= await _at_once(server.port, route, texts, answer.vectors)
    return figures


async def _at_once(port: int, route: Route, texts: list[str], expected: Vectors) -> Figures:
    connections = [Connection(port, timeout_s=_ANSWER_S) for _ in texts]
    opening = asyncio.Semaphore(_OPENING)

    async def connect(connection: Connection) -> None:
        async with opening:
            await connection.open()

    await asyncio.gather(*map(connect, connections))
    began = time.perf_counter()
    answers = await asyncio.gather(
        *(one.embed(route, [text]) for one, text in zip(connections, texts, strict=True))
    )
    seconds = time.perf_counter() - began
    for connection in connections:
        connection.close()
    wrong = [answer for answer in answers if answer.status != 200]
    differing = sum(
        not np.array_equal(answer.vectors[0].view(np.uint32), row.view(np.uint32))
        for answer, row in zip(answers, expected, strict=True)
        if answer.status == 200
    )
    return {
        f"{route}: not answered with 200": len(wrong),
        f"{route}: vectors that differ from the batch's": differing,
        f"{route}: texts/s": len(texts) / seconds,
        f"{route}: last answer, s": max(answer.seconds for answer in answers),
    }
