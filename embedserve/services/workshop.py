"""The processes that make an artefact: the exporter, and workbenches that build and measure.

`LoadedModel` is the typed side of a workbench that has loaded a model.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Lock, Timer
from typing import Any, Literal

import numpy as np

from embedserve.errors import ModelError
from embedserve.models import fidelity
from embedserve.models.exporter import OFFLINE, Exporter
from embedserve.types import EncoderSpec, Vectors

LIMIT_S = 1800
"""How long a workbench may take for one thing. The longest, the reference texts through 2 GB of
weights on an old core, takes minutes; an engine that hangs would hold up every later pull."""
_ERROR_BYTES = 2_000


class Workbench:
    """One process of `services/workbench.py`, which is ended if it takes longer than `limit_s`."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
        self._is_late = False
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
        timer = Timer(self._limit_s, self._give_up)
        timer.daemon = True  # a process that ends meanwhile must not wait for it
        timer.start()
        try:
            process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except (BrokenPipeError, ValueError):
            line = ""
        finally:
            timer.cancel()
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

    def _give_up(self) -> None:
        self._is_late = True
        self._process.kill()

    def _why_gone(self, do: str) -> str:
        returncode = self._process.wait()
        if self._is_late:
            return (
                f"The process for `{do}` was ended, as it took longer than {self._limit_s:g} s. "
                "Pull again when the machine has less to do, or with another `--recipe` or "
                "`--engine`."
            )
        if returncode == -9:
            return (
                f"The process for `{do}` was killed. If nobody did that, memory ran out: "
                "free some and pull again."
            )
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - _ERROR_BYTES))
        last = self._log.read().decode(errors="replace").strip()
        # The first line alone is kept where a candidate is refused; a traceback's reason is last.
        reason = last.rpartition("\n")[2]
        return f"The process for `{do}` ended with status {returncode}: {reason}\n{last}"


class LoadedModel:
    """A model that a workbench has loaded, and what is measured of it."""

    def __init__(
        self,
        bench: Workbench,
        spec: EncoderSpec,
        kind: Literal["embedding", "reranker"],
        *,
        device: str,
        threads: int,
    ) -> None:
        self._bench = bench
        self._is_reranker = kind == "reranker"
        values: dict[str, Any] = asdict(spec)
        paths = {name: str(values[name]) for name in ("onnx_path", "tokenizer_path")}
        bench.ask("load", spec=values | paths, device=device, threads=threads)

    def reference_rows(self) -> Vectors:
        """Return what fidelity compares: vectors of texts, or scores of queries by passages."""
        if self._is_reranker:
            queries, passages = fidelity.reference_pairs()
            return self._rows("score", queries=queries, passages=passages)
        return self._rows("encode", texts=fidelity.reference_texts())

    def canary(self, text: str) -> Vectors:
        """Return the vector of `text` (dimensions,), or a reranker's score of it with itself."""
        rows = (
            self._rows("score", queries=[text], passages=[text])
            if self._is_reranker
            else self._rows("encode", texts=[text])
        )
        vector: Vectors = rows[0]
        return vector

    def speed(self, of: str, seconds: float) -> float:
        """Return tokens per second; `of` is a key of `workbench._ROUNDS`."""
        speed: float = self._bench.ask("speed", of=of, seconds=seconds)
        return speed

    def is_batch_invariant(self) -> bool:
        """Tell whether texts give the same bits alone and among others."""
        is_invariant: bool = self._bench.ask("is_batch_invariant")
        return is_invariant

    def machine(self) -> dict[str, Any]:
        """Return what the figures depend on, and what the process holds now."""
        machine: dict[str, Any] = self._bench.ask("machine")
        return machine

    def _rows(self, do: str, **arguments: list[str]) -> Vectors:
        with tempfile.TemporaryDirectory(prefix="embedserve-rows-") as folder:
            output = Path(folder) / "rows.npy"
            self._bench.ask(do, output=str(output), **arguments)
            rows: Vectors = np.load(output)
        return rows


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

    @property
    def is_closed(self) -> bool:
        """Tell whether `close` was called: what failed since did so because of that."""
        return self._is_closed

    def close(self) -> None:
        """End what is in work and refuse more."""
        self.exporter.close()
        with self._lock:
            self._is_closed = True
            for bench in self._open:
                bench.kill()
