"""`embedserve serve` for scripts: started, asked for its port, stopped by its process."""

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

START_S = 60
STOP_S = 60
USUAL_OPEN_FILES = 1024
"""What most systems give a process that asks for nothing; the server must cope with it."""
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
        end(self.process)


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a process to stop, unless it has; one that does not in time is killed, and raises."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise


@contextmanager
def fresh_home(models: Path) -> Iterator[Path]:
    """Give an empty home that has the models."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir()
        (home / "models").symlink_to(models.resolve())
        yield home


@contextmanager
def copied_home(models: Path) -> Iterator[Path]:
    """Give an empty home that has copies of the models, so that they may be changed."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        shutil.copytree(models, home / "models")
        yield home


@contextmanager
def serve(
    home: Path,
    settings: Mapping[str, str] | None = None,
    *,
    arguments: Sequence[str] = (),
    program: Sequence[str] = ("-m", "embedserve"),
    files_at_start: int | None = None,
) -> Iterator[Server]:
    """Run a server in a home with these `EMBEDSERVE_*` settings; it is ended on leaving.

    It is started with a soft limit of `files_at_start` open files; None: with that of this process.
    `program` is what Python runs for the command `embedserve`.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith("EMBEDSERVE_")}
    command = [sys.executable, *program, "serve", "--port", "0", "--home", str(home)]
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "log"
        with log_path.open("wb") as output:
            process = subprocess.Popen(
                [*command, *arguments],
                cwd=folder,  # no project folder: no definitions are picked up
                env={**kept, **(settings or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        server = Server(process, log_path)
        try:
            if files_at_start is not None:
                # At once, long before it serves; to lower this process's own could starve it.
                hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[1]
                resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (files_at_start, hard))
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
