"""A real server in a process of its own, bounded in time and stopped by its process id."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

START_S = 60
STOP_S = 30
JOB_S = 150


def environment(**extra: str) -> dict[str, str]:
    """Return the environment for child processes: no settings of the person who runs the tests."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EMBEDSERVE_", "OLLAMA_"))}
    return {**kept, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "200", **extra}


class LiveServer:
    """`embedserve serve` on a free port of this machine."""

    def __init__(
        self,
        home: Path,
        *,
        allow: Sequence[Path] = (),
        arguments: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        patience: int = 1,
        prefix: Sequence[str] = (),
    ) -> None:
        """Wait `patience` times as long as tests do.

        `prefix`: a command that runs the server, such as one that takes rights from it.
        """
        self.home = home
        self._patience = patience
        self.log_path = home.with_name(home.name + ".log")
        command = [
            *prefix,
            sys.executable,
            "-m",
            "embedserve",
            "serve",
            "--port",
            "0",
            "--home",
            str(home),
        ]
        for root in allow:
            command += ["--allow", str(root)]
        home.mkdir(parents=True, exist_ok=True)
        self._first_line = self.log_path.stat().st_size if self.log_path.exists() else 0
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *arguments],
                cwd=home,  # no project folder there: no definitions are picked up by chance
                env=environment(**(settings or {})),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.http = httpx.Client(base_url=self._url(), timeout=60 * patience, trust_env=False)

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self.process.pid

    def log(self) -> str:
        """Return what this run of the server has printed so far."""
        return self.log_path.read_bytes()[self._first_line :].decode(errors="replace")

    def kill(self) -> None:
        """End the server as a power failure would end it: no chance to tidy up."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(STOP_S * self._patience)
        self.http.close()

    def stop(self) -> int:
        """Ask the server to stop and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.http.close()
        try:
            return self.process.wait(STOP_S * self._patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def wait_for_log(self, words: str) -> None:
        """Wait until this run of the server has printed `words`."""
        deadline = time.monotonic() + START_S
        while words not in self.log():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def ingest(self, index: str, path: Path) -> dict[str, Any]:
        """Ingest a folder, wait for the job and return it."""
        self.http.put(f"/indexes/{index}", json={}).raise_for_status()
        reply = self.http.post(f"/indexes/{index}/ingest", json={"path": str(path)})
        assert reply.status_code == 202, reply.text
        return self.wait_for_job(reply.json()["id"])

    def wait_for_job(self, job_id: str) -> dict[str, Any]:
        """Wait until a job has ended and return it."""
        deadline = time.monotonic() + JOB_S * self._patience
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.http.get(f"/jobs/{job_id}?limit=10000").json()
            if job["status"] not in ("queued", "running"):
                return job
            time.sleep(0.05)
        raise TimeoutError(f"job {job_id} did not end: {job}\n{self.log()[-3000:]}")

    def query(self, index: str, text: str, k: int = 5, **asked: object) -> list[dict[str, Any]]:
        """Return the hits for a question: chunks as they are, unless something else is asked."""
        hits: list[dict[str, Any]] = self.ask(
            index, query=text, **{"k": k, "passage_tokens": 0, **asked}
        )["hits"]
        return hits

    def ask(self, index: str, **asked: object) -> dict[str, Any]:
        """Return the answer to a query."""
        reply = self.http.post(f"/indexes/{index}/query", json=asked)
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer

    def counts(self, index: str) -> dict[str, int]:
        """Return the counts of an index."""
        counts: dict[str, int] = self.http.get(f"/indexes/{index}").json()["counts"]
        return counts

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _url(self) -> str:
        """Wait until the server says where it serves."""
        deadline = time.monotonic() + START_S * self._patience
        while time.monotonic() < deadline:
            if found := re.search(r"serving at (http://\S+)", self.log()):
                return found[1]
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended at start:\n{self.log()}")
            time.sleep(0.02)
        self.process.kill()
        raise TimeoutError(f"the server did not start:\n{self.log()}")
