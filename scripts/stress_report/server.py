"""`embedserve serve` in a home of its own: started, asked for its port, stopped by its process."""

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

START_S = 60
STOP_S = 60
# What most systems give a process that asks for nothing; the server must cope with it.
USUAL_OPEN_FILES = 1024
_ADDRESS = re.compile(r"serving at http://[^:]+:(\d+)")


@dataclass(frozen=True)
class Server:
    """A server that runs."""

    process: "subprocess.Popen[bytes]"
    log_path: Path
    port: int = 0

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self.process.pid

    @property
    def errors(self) -> int:
        """How many errors the server has logged."""
        return self.log().count(" ERROR ")

    def log(self) -> str:
        """Return what the server has printed so far."""
        return self.log_path.read_text(errors="replace")

    def stop(self) -> None:
        """Ask the server to stop, unless it has, and wait until it is gone."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


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
        with log_path.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,  # no project folder: no definitions are picked up
                env={**kept, **(settings or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        # At once, long before it serves; to lower this process's own limit could starve it.
        hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (files_at_start, hard))
        server = Server(process, log_path)
        try:
            yield replace(server, port=_port(server))
        finally:
            server.stop()


def _port(server: Server) -> int:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.process.poll() is None:
        if found := _ADDRESS.search(server.log()):
            return int(found[1])
        time.sleep(0.02)
    raise SystemExit(f"The server did not start:\n{server.log()}")
