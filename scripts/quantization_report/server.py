"""What `embedserve serve` holds once it has embedded texts of all lengths."""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

from embedserve.models.calibration import calibration_texts
from scripts.quantization_report.measure import tell
from scripts.quantization_report.rival import resident_bytes

_START_S = 60
_TIMES = 5


def resident_bytes_of_server(model: str, home: Path) -> int:
    """Pull the model into `home` unless it is there, serve it, use it, and return its memory."""
    tell(f"serving {model}")
    command = [sys.executable, "-m", "embedserve"]
    subprocess.run(
        [*command, "pull", model, "--force", "--home", str(home)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with tempfile.TemporaryDirectory() as folder, _server(command, home, Path(folder)) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=120)
        for _ in range(_TIMES):
            body = json.dumps({"model": model, "input": calibration_texts()})
            connection.request("POST", "/api/embed", body)
            reply = connection.getresponse()
            if reply.status != 200:
                raise SystemExit(f"/api/embed answered {reply.status}: {reply.read()!r}")
            reply.read()
        return resident_bytes(server.pid)


class _Server:
    def __init__(self, pid: int, port: int) -> None:
        self.pid, self.port = pid, port


@contextmanager
def _server(command: list[str], home: Path, folder: Path) -> Iterator[_Server]:
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "serve", "--port", "0", "--home", str(home)],
            cwd=folder,
            stdout=output,
            stderr=output,
        )
    try:
        yield _Server(process.pid, _port(process, log))
    finally:
        process.terminate()
        process.wait(60)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"serving at http://[^:]+:(\d+)", log.read_text(encoding="utf-8")):
            return int(found[1])
        time.sleep(0.05)
    raise SystemExit(f"The server did not start:\n{log.read_text(encoding='utf-8')}")
