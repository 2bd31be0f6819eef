"""Searches of a server over HTTP: latency, throughput, stages, memory. And recall, in a house."""

import json
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx

from embedserve.services.memory import resident_bytes
from scripts.bench_report.load import Client, Load, Outcome, request
from scripts.bench_report.measure import tell
from scripts.search_report.figures import Size
from scripts.search_report.home import INDEX, Made, open_resident
from scripts.serving import serve
from scripts.stress_report.processes import family

KINDS: dict[str, dict[str, Any]] = {
    "hybrid": {},
    "dense": {"mode": "dense"},
    "lexical": {"mode": "lexical"},
    "filter, 1 %": {"filter": {"metadata": {"share": 0}}},
    "filter, 50 %": {"filter": {"metadata": {"share": {"lt": 50}}}},
    "exact": {"exact": True},
}
"""What is asked for beside the question."""
STAGES = ("embed", "dense", "lexical", "fuse", "answer")
CLIENTS = (1, 4, 16)
WARM_CALLS = 40
STAGE_CALLS = 100
RECALL_CALLS = 100
CANDIDATES = 100
PATH = f"/indexes/{INDEX}/query"
_READY_S = 900.0


def measure(home: Path, made: Made, asked: Sequence[str], *, calls: int, seconds: float) -> Size:
    """Measure a home; no question is asked twice of one server in a row of calls."""
    size = Size(made.chunks, made.texts, made.documents, made.variants, made.embedded)
    with serve(home) as server, closing(Client()) as client:
        http = httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=120)
        _wait_until_ready(http)
        turn = _Turn(asked)
        for kind, extra in KINDS.items():
            loads = _Loads(server.port, turn, extra)
            client.run(loads.of(WARM_CALLS if kind != "exact" else 2))
            outcome = client.run(loads.of(calls if kind != "exact" else max(10, calls // 10)))
            size.latency_ms[kind] = _percentiles(outcome)
            size.stages_ms[kind] = _stages(http, turn, extra, STAGE_CALLS if kind != "exact" else 5)
            tell(f"{kind}: {size.latency_ms[kind]} {size.stages_ms[kind]}")
        loads = _Loads(server.port, turn, {})
        for clients in CLIENTS:
            outcome = client.run(loads.of(10**9, clients=clients, seconds=seconds))
            size.queries_per_s[str(clients)] = outcome.calls_per_s()
            size.loaded_ms[str(clients)] = _percentiles(outcome)
            tell(f"{clients} clients: {outcome.calls_per_s():.1f} queries/s")
        size.memory_bytes.update(_memory(server.pid))
    size.recall = recall(home, asked[:RECALL_CALLS])
    tell(f"recall {size.recall:.4f}")
    return size


def recall(home: Path, asked: Sequence[str]) -> float:
    """Return the share of the true best candidates that the dense leg finds, as it is served."""
    with open_resident(home) as resident:
        while not resident.dense._worker.is_ready(resident.index.key):
            time.sleep(0.2)
        shares = []
        for vector in resident.encoder.encode(asked):
            found = resident.dense.search(resident.index, vector, count=CANDIDATES)
            if found.is_exact:
                raise SystemExit("The vector index was not asked.")
            true = resident.dense.search(resident.index, vector, count=CANDIDATES, is_exact=True)
            wanted = {hit.id for hit in true.hits}
            shares.append(len(wanted & {hit.id for hit in found.hits}) / len(wanted))
    return fmean(shares)


class _Turn:
    """Questions, each once before any comes again."""

    def __init__(self, asked: Sequence[str]) -> None:
        self._asked = asked
        self._at = 0

    def next(self, count: int) -> list[str]:
        """Return the next questions."""
        taken = [self._asked[(self._at + step) % len(self._asked)] for step in range(count)]
        self._at += count
        return taken


class _Loads:
    def __init__(self, port: int, turn: _Turn, extra: dict[str, Any]) -> None:
        self._port, self._turn, self._extra = port, turn, extra

    def of(self, calls: int, *, clients: int = 1, seconds: float = 3600.0) -> Load:
        texts = self._turn.next(min(calls, 4000))
        requests = [request(PATH, json.dumps(_body(text, self._extra)).encode()) for text in texts]
        return Load(self._port, requests, clients=clients, seconds=seconds, calls=calls)


def _body(text: str, extra: dict[str, Any]) -> dict[str, Any]:
    return {"query": text, "k": 5, **extra}


def _percentiles(outcome: Outcome) -> dict[str, float]:
    return {f"p{percent}": outcome.percentile_ms(percent) for percent in (50, 99)}


def _stages(http: httpx.Client, turn: _Turn, extra: dict[str, Any], calls: int) -> dict[str, float]:
    """Return the mean of each stage."""
    timings = []
    for text in turn.next(calls):
        answer = http.post(PATH, json=_body(text, extra)).raise_for_status().json()
        timings.append(answer["timings_ms"])
    found = {name for one in timings for name in one}
    return {name: fmean(one.get(name, 0.0) for one in timings) for name in STAGES if name in found}


def _wait_until_ready(http: httpx.Client) -> None:
    """Ask until the vector index answers: after a start it reads its log first."""
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        body = _body("what is it?", {"mode": "dense"})
        if not http.post(PATH, json=body).raise_for_status().json()["exact"]:
            return
        time.sleep(0.5)
    raise SystemExit("The vector index did not become ready.")


def _memory(pid: int) -> dict[str, int]:
    """Return the resident bytes of the server and of Chroma."""
    children = [child for child in family(pid) if child != pid and _is_chroma(child)]
    return {"server": resident_bytes(pid), "Chroma": sum(map(resident_bytes, children))}


def _is_chroma(pid: int) -> bool:
    return b"chroma" in Path(f"/proc/{pid}/cmdline").read_bytes()
