"""What `embedserve serve` holds once it has embedded texts of all lengths."""

import json
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

from embedserve.models.calibration import calibration_texts
from embedserve.services.memory import resident_bytes
from scripts.quantization_report.measure import tell
from scripts.serving import serve

_TIMES = 5


def resident_bytes_of_server(model: str, home: Path) -> int:
    """Pull the model into `home` unless it is there, serve it, use it, and return its memory."""
    tell(f"serving {model}")
    subprocess.run(
        [sys.executable, "-m", "embedserve", "pull", model, "--force", "--home", str(home)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with serve(home) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=120)
        for _ in range(_TIMES):
            body = json.dumps({"model": model, "input": calibration_texts()})
            connection.request("POST", "/api/embed", body)
            reply = connection.getresponse()
            if reply.status != 200:
                raise SystemExit(f"/api/embed answered {reply.status}: {reply.read()!r}")
            reply.read()
        return resident_bytes(server.pid)
