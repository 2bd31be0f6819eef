"""A job of a real server, asked for over HTTP: what people run is what is measured."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from scripts.ingest_report.tree import Peaks, watched
from scripts.serving import Server, serve

INDEX = "measured"
WITHOUT_ENGINE = Path(__file__).with_name("without_engine.py")
_POLL_S = 1.0
"""Seconds: to ask costs the server what is measured."""


@dataclass(frozen=True)
class Run:
    """What one job did."""

    seconds: float
    files: int
    chunks: int
    embedded: int
    tokens: int
    """Embedded."""
    peaks: Peaks


class Ingester:
    """A server with one index, which ingests a folder."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._http = client_of(server)
        self._http.put(f"/indexes/{INDEX}", json={}).raise_for_status()

    def ingest(self) -> Run:
        """Run one job to its end; raise SystemExit when it fails."""
        with watched(self._server.pid) as peaks:
            started = time.perf_counter()
            job = self._http.post(f"/indexes/{INDEX}/ingest", json={"path": str(self._folder)})
            for done in states(self._http, job.raise_for_status().json()["id"], every_s=_POLL_S):
                job_now = done
            seconds = time.perf_counter() - started
        if job_now["status"] != "succeeded":
            raise SystemExit(f"The job ended as {job_now['status']}: {job_now['error']}")
        counts = self._http.get(f"/indexes/{INDEX}").raise_for_status().json()["counts"]
        embedded, tokens = job_now["chunks_embedded"], job_now["progress"]["tokens"]
        return Run(seconds, counts["documents"], counts["chunks"], embedded, tokens, peaks)


@contextmanager
def ingester(home: Path, folder: Path, *, is_apart: bool) -> Iterator[Ingester]:
    """Start a server in a home, with sums in place of its engine if that is measured apart."""
    program: Mapping[str, Any] = {"program": [str(WITHOUT_ENGINE)]} if is_apart else {}
    with serve(home, arguments=["--allow", str(folder)], **program) as server:
        yield Ingester(server, folder)


def client_of(server: Server) -> httpx.Client:
    """Return a client of a server."""
    return httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=600, trust_env=False)


def states(http: httpx.Client, job_id: str, *, every_s: float) -> Iterator[dict[str, Any]]:
    """Yield a job as it is, again and again, until it has ended."""
    while True:
        job: dict[str, Any] = http.get(f"/jobs/{job_id}").raise_for_status().json()
        yield job
        if job["status"] not in ("queued", "running"):
            return
        time.sleep(every_s)
