"""Many threads may be the first to use an engine, all at once."""

import subprocess
import sys
from pathlib import Path

from tests.tiny_graph import MAX_TOKENS, PAD, write_tiny_graph

# Its own process: what is set up on first use is set up once in a process.
FIRST_USE = """
import os, sys, threading
from pathlib import Path
import numpy as np
from embedserve.engine.backend import BACKENDS, BackendOptions

options = BackendOptions("cpu", 4, "f32", int(sys.argv[2]), int(sys.argv[3]))
backend = BACKENDS.load("openvino").load(Path(sys.argv[1]), options)
start = threading.Barrier(8)

def run():
    start.wait()
    backend.run([np.arange(1, 9)])

threads = [threading.Thread(target=run, daemon=True) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(20)
print(sum(thread.is_alive() for thread in threads), flush=True)
os._exit(0)  # a thread that hangs would hold up the end
"""


def test_threads_that_are_first_at_once_do_not_wait_for_each_other(tmp_path: Path) -> None:
    graph = write_tiny_graph(tmp_path / "tiny.onnx")
    arguments = [str(graph), str(PAD), str(MAX_TOKENS)]
    for _ in range(3):
        found = subprocess.run(
            [sys.executable, "-c", FIRST_USE, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert found.stdout.strip() == "0", "threads that hang"
