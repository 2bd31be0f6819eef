"""`embedserve serve` in a home of its own, and ingestion jobs on it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from scripts.serving import fresh_home, serve

_POLL_S = 0.2
_INDEX = "bench"


@contextmanager
def serving(models: Path, *, allow: Path) -> Iterator[int]:
    """Run the server with its defaults in a fresh home and give its port."""
    arguments = ["--allow", str(allow.resolve())]
    with fresh_home(models) as home, serve(home, arguments=arguments) as server:
        yield server.port


class Job:
    """An ingestion of a folder into an empty index; it runs from the start."""

    def __init__(self, port: int, folder: Path) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=120)
        self._ask("PUT", f"/indexes/{_INDEX}", {})
        started = self._ask("POST", f"/indexes/{_INDEX}/ingest", {"path": str(folder.resolve())})
        self._id = started["id"]

    def wait(self) -> dict[str, Any]:
        """Wait for the end and return the job."""
        while True:
            job = self._ask("GET", f"/jobs/{self._id}?limit=0")
            if job["status"] not in ("queued", "running"):
                break
            time.sleep(_POLL_S)
        self._connection.close()
        if not job["status"].startswith("succeeded"):
            raise SystemExit(f"The ingestion ended as `{job['status']}`: {job['error']}")
        return job

    def _ask(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        self._connection.request(method, path, None if body is None else json.dumps(body))
        reply = self._connection.getresponse()
        content = reply.read()
        if reply.status >= 300:
            raise SystemExit(f"{method} {path} answered {reply.status}: {content[:500]!r}")
        answer: dict[str, Any] = json.loads(content)
        return answer


def chunks_per_s(job: dict[str, Any]) -> float:
    """Return the chunks embedded each second between a job's start and its end."""
    began, ended = (datetime.fromisoformat(job[key]) for key in ("started_at", "finished_at"))
    chunks: int = job["chunks_embedded"]
    if not chunks:
        raise SystemExit("The folder gave no chunks; name another one with `--folder`.")
    return chunks / (ended - began).total_seconds()
