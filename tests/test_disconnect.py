"""A client that leaves takes its work with it."""

import os
import time
from pathlib import Path

import httpx
import pytest

from tests.live import LiveServer

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


@pytest.mark.parametrize("route", ["/api/embed", "/v1/embeddings"])
def test_what_nobody_waits_for_is_not_embedded(server: LiveServer, route: str) -> None:
    # About a quarter of a minute of work for two cores.
    body = {"model": "all-minilm", "input": [f"{n} " + "word " * 240 for n in range(3000)]}
    with pytest.raises(httpx.ReadTimeout):
        server.http.post(route, json=body, timeout=httpx.Timeout(60, read=2))
    time.sleep(1)  # the batches in hand are finished
    before = cpu_seconds(server.pid)
    time.sleep(1)
    assert cpu_seconds(server.pid) - before < 0.4
