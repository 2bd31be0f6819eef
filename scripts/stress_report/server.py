"""`embedserve serve` in a home of its own: started, asked for its port, stopped by its process."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.stress_report.processes import open_files

START_S = 60
STOP_S = 60
# What most systems give a process that asks for nothing; the server must cope with it.
USUAL_OPEN_FILES = 1024


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    process: "subprocess.Popen[bytes]"
    port: int
    log_path: Path

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self.process.pid

    def log(self) -> str:
        """Return what the server has printed so far."""
        return self.log_path.read_text(errors="replace")


@contextmanager
def serve(
    models: Path,
    settings: Mapping[str, str] | None = None,
    *,
    files_at_start: int = USUAL_OPEN_FILES,
) -> Iterator[Server]:
    """Run a server with these models and `EMBEDSERVE_*` settings; it is ended on leaving.

    It is started with a soft limit of `files_at_start` open files.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("EMBEDSERVE_")}
    with tempfile.TemporaryDirectory() as folder:
        home, log_path = Path(folder) / "home", Path(folder) / "log"
        home.mkdir()
        (home / "models").symlink_to(models.resolve())
        command = [sys.executable, "-m", "embedserve", "serve", "--port", "0", "--home", str(home)]
        with log_path.open("wb") as output, open_files(files_at_start):
            process = subprocess.Popen(
                command,
                cwd=folder,  # no project folder: no definitions are picked up
                env={**kept, **(settings or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            yield Server(process, _port(process, log_path), log_path)
        finally:
            _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


def _port(process: "subprocess.Popen[bytes]", log_path: Path) -> int:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"serving at http://[^:]+:(\d+)", log_path.read_text()):
            return int(found[1])
        time.sleep(0.02)
    raise SystemExit(f"The server did not start:\n{log_path.read_text()}")
