"""What OpenVINO must not do: report, spin, keep memory for every length, hold up the end."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embedserve.engine.backend import BackendOptions, describe
from embedserve.engine.openvino_backend import OpenVinoBackend
from tests.live import environment
from tests.tiny_graph import MAX_TOKENS, PAD, random_text, write_tiny_graph

pytestmark = pytest.mark.skipif(
    not describe("openvino").is_available,
    reason=f"OPENVINO NOT CHECKED: {describe('openvino').why_not}",
)

ROOT = Path(__file__).parent.parent

# Run in a process of its own: the graph's path comes first, what was seen is printed as JSON.
PREPARE = """
import json, os, sys, threading, time
seen = {"network": [], "sockets": []}
sys.addaudithook(lambda event, args: event.startswith("socket.") and seen["network"].append(event))
from pathlib import Path
from embedserve.engine.backend import BACKENDS, BackendOptions
from embedserve.errors import ModelError
from tests.tiny_graph import MAX_TOKENS, PAD, random_text
import numpy as np
options = BackendOptions("cpu", 2, "f32", PAD, MAX_TOKENS)
seen["network"].clear()
"""


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_graph(tmp_path_factory.mktemp("graph") / "tiny.onnx")


def in_a_process(code: str, graph: Path, home: Path) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", PREPARE + code, str(graph)],
        env={**environment(), "HOME": str(home), "PYTHONPATH": str(ROOT)},
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    seen: dict[str, object] = json.loads(done.stdout)
    return seen


def test_nothing_is_sent_and_nothing_is_left_in_the_home(graph: Path, tmp_path: Path) -> None:
    """Below Python no hook sees a connection, so open sockets are looked for all the while."""
    code = """
def watch():
    while not done.wait(0.002):
        for number in os.listdir("/proc/self/fd"):
            try:
                target = os.readlink(f"/proc/self/fd/{number}")
            except OSError:
                continue
            if target.startswith("socket:") and target not in seen["sockets"]:
                seen["sockets"].append(target)
done = threading.Event()
watching = threading.Thread(target=watch)
watching.start()
backend = BACKENDS.load("openvino").load(Path(sys.argv[1]), options)
backend.run([random_text(9)])
backend.close()
time.sleep(0.2)
done.set()
watching.join()
names = ("openvino_telemetry", "openvino.tools.ovc", "openvino")
print(json.dumps({**seen, "modules": [name for name in names if name in sys.modules]}))
"""
    seen = in_a_process(code, graph, tmp_path)
    assert seen == {"network": [], "sockets": [], "modules": ["openvino"]}
    assert list(tmp_path.rglob("*")) == []


def test_idle_engine_takes_no_time_and_lets_the_process_end(graph: Path, tmp_path: Path) -> None:
    code = """
backend = BACKENDS.load("openvino").load(Path(sys.argv[1]), options)
def work():
    for _ in range(100):
        backend.run([random_text(90)])
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
before = time.process_time()
time.sleep(0.5)
print(json.dumps({"idle_s": time.process_time() - before}), flush=True)
"""
    seen = in_a_process(code, graph, tmp_path)
    assert isinstance(seen["idle_s"], float)
    assert seen["idle_s"] < 0.05


def test_memory_does_not_grow_with_the_lengths_that_were_met(graph: Path, tmp_path: Path) -> None:
    code = """
def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
backend = BACKENDS.load("openvino").load(Path(sys.argv[1]), options)
texts = [random_text(length) for length in range(1, MAX_TOKENS + 1)]
generator = np.random.default_rng(1)
def embed(count):
    for length in generator.integers(1, MAX_TOKENS + 1, count).tolist():
        backend.run([texts[length - 1]] * int(generator.integers(1, 9)))
embed(500)
before = resident_mb()
embed(2000)
print(json.dumps({"grown_mb": resident_mb() - before}))
"""
    seen = in_a_process(code, graph, tmp_path)
    assert isinstance(seen["grown_mb"], float)
    assert seen["grown_mb"] < 4


def test_absent_package_is_said_and_what_to_do(graph: Path, tmp_path: Path) -> None:
    code = """
from embedserve.engine.openvino_backend import OpenVinoBackend
import embedserve.registry
sys.path = [path for path in sys.path if "site-packages" not in path]
facts = OpenVinoBackend.facts()
try:
    OpenVinoBackend.load(Path(sys.argv[1]), options)
except ModelError as error:
    print(json.dumps({"is": facts.is_available, "why": facts.why_not, "error": error.message}))
"""
    seen = in_a_process(code, graph, tmp_path)
    assert seen["is"] is False
    for message in (seen["why"], seen["error"]):
        assert "`pip install openvino`" in str(message)
        assert "`--engine onnxruntime`" in str(message)


def test_lengths_share_few_buckets_with_little_padding(graph: Path) -> None:
    options = BackendOptions("cpu", 1, "f32", PAD, MAX_TOKENS)
    backend = OpenVinoBackend.load(graph, options)
    buckets = {length: backend.bucket(length) for length in range(1, MAX_TOKENS + 1)}
    assert sorted({*buckets.values()}) == [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, MAX_TOKENS]
    backend.close()


def test_parts_of_a_batch_come_back_in_order(graph: Path) -> None:
    backend = OpenVinoBackend.load(graph, BackendOptions("cpu", 1, "f32", PAD, MAX_TOKENS))
    texts = [random_text(60, seed) for seed in range(23)]
    alone = np.concatenate([backend.run([ids]) for ids in texts])
    assert np.array_equal(backend.run(texts), alone)
    backend.close()
