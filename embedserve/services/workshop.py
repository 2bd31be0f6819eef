"""The processes that make an artefact: the exporter, and workbenches that build and measure."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

from embedserve.errors import ModelError
from embedserve.models.exporter import OFFLINE, Exporter

_ERROR_BYTES = 2_000


class Workbench:
    """One process of `services/workbench.py`."""

    def __init__(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "embedserve.services.workbench"],
            env={**os.environ, **OFFLINE},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def ask(self, do: str, **arguments: Any) -> Any:  # noqa: ANN401  # raw JSON
        """Have something done and return what came of it; raise ModelError that says why not."""
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise ModelError("This is a bug: a workbench without pipes.")
        try:
            process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except (BrokenPipeError, ValueError):
            line = ""
        if not line:
            raise ModelError(self._why_gone(do))
        reply = json.loads(line)
        if "error" in reply:
            raise ModelError(reply["error"])
        return reply["ok"]

    def close(self) -> None:
        """End the process; it has nothing to tidy up."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def kill(self) -> None:
        """End the process from another thread: who waits for an answer gets an error."""
        self._process.kill()

    def _why_gone(self, do: str) -> str:
        returncode = self._process.wait()
        if returncode == -9:
            return (
                f"The process for `{do}` was killed. If nobody did that, memory ran out: "
                "free some and pull again."
            )
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - _ERROR_BYTES))
        last = self._log.read().decode(errors="replace").strip()
        return f"The process for `{do}` ended with status {returncode}. Its last words:\n{last}"


class Workshop:
    """Everything that a pull runs outside of this process; `close` ends it all."""

    def __init__(self) -> None:
        self.exporter = Exporter()
        self._lock = Lock()
        self._open: set[Workbench] = set()
        self._is_closed = False

    @contextmanager
    def workbench(self) -> Iterator[Workbench]:
        """Lend a fresh process."""
        with self._lock:
            if self._is_closed:
                raise ModelError("The pull was stopped with the process that asked for it.")
            bench = Workbench()
            self._open.add(bench)
        try:
            yield bench
        finally:
            with self._lock:
                self._open.discard(bench)
            bench.close()

    def close(self) -> None:
        """End what is in work and refuse more."""
        self.exporter.close()
        with self._lock:
            self._is_closed = True
            for bench in self._open:
                bench.kill()
