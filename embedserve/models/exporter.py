"""Runs `models/export.py` in a process of its own, and can end it. Loads no training stack."""

import os
import re
import subprocess
import sys
from pathlib import Path
from threading import Lock

from embedserve.errors import ModelError
from embedserve.models.checkpoint import Overrides

_ERROR_LINES = 5
# The checkpoint is complete: whatever would reach for the network now should not.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}


class Exporter:
    """Export one checkpoint at a time, until it is closed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._process: subprocess.Popen[str] | None = None
        self._is_closed = False

    def export(self, source: Path, output: Path, overrides: Overrides) -> None:
        """Write fp32 graph and tokenizer into the folder `output`; raise ModelError.

        See `models/export.py`.
        """
        command = [sys.executable, "-m", "embedserve.models.export"]
        command += [str(source), str(output), *_arguments(overrides)]
        with self._lock:
            if self._is_closed:
                raise _stopped(source)
            process = self._process = subprocess.Popen(
                command,
                env={**os.environ, **OFFLINE},
                # Nothing is written: its end tells the child that this process is gone.
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        with process:
            # Not communicate, which would close its input at once.
            stderr = process.stderr.read() if process.stderr else ""
        if self._is_closed:
            raise _stopped(source)
        if process.returncode != 0:
            raise ModelError(_why_export_failed(source, process.returncode, stderr))

    def close(self) -> None:
        """End the export in progress and refuse others."""
        with self._lock:
            self._is_closed = True
            if self._process:
                # It has nothing to tidy up: its output folder goes with the pull.
                self._process.kill()


def _arguments(overrides: Overrides) -> list[str]:
    given = {
        "--pooling": overrides.pooling,
        "--max-tokens": overrides.max_tokens,
        "--query-prompt": overrides.query_prompt,
        "--document-prompt": overrides.document_prompt,
    }
    arguments = [f"{flag}={value}" for flag, value in given.items() if value is not None]
    return [*arguments, "--ignore-onnx"] if overrides.ignores_onnx else arguments


def _stopped(source: Path) -> ModelError:
    return ModelError(f"Export of `{source}` was stopped with the process that asked for it.")


def _why_export_failed(source: Path, returncode: int, stderr: str) -> str:
    lines = [line.rstrip() for line in stderr.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if missing := re.match(r"ModuleNotFoundError: No module named '([^']+)'", last):
        return (
            f"Export needs the package `{missing[1]}`, which is not installed. "
            "Install it with `pip install 'embedserve[export]'`."
        )
    if returncode < 0:
        return (
            f"Export of `{source}` was killed by signal {-returncode}. "
            "If that is 9, memory ran out: free some and pull again."
        )
    tail = "\n".join(lines[-_ERROR_LINES:])
    return f"Export of `{source}` failed with status {returncode}. Its last words:\n{tail}"
