"""What serving costs and imports: no training stack, a bounded resident size, no way out."""

import re
import subprocess
import sys
from pathlib import Path

from tests.live import LiveServer, environment

TRAINING_STACK = ("torch", "transformers", "sentence_transformers", "optimum", "onnx", "nncf")
ENGINES = {"onnxruntime", "openvino"}
MEMORY_MB = 350


def test_importing_embedserve_loads_nothing_heavy() -> None:
    code = "import sys, embedserve; print(sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    for package in (*TRAINING_STACK, *ENGINES, "chromadb", "fastapi", "numpy"):
        assert f"'{package}'" not in done.stdout


def test_a_serving_process_has_no_training_stack_and_stays_small(
    home: Path, tmp_path: Path
) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.md").write_text("# A\nSome text.", encoding="utf-8")
    # -X importtime names on standard error every module that is loaded, whoever loads it.
    with LiveServer(
        home,
        allow=[tmp_path / "documents"],
        settings={"PYTHONPROFILEIMPORTTIME": "1"},
    ) as server:
        body = {"model": "all-minilm", "input": ["one text", "word " * 300] * 64}
        assert server.http.post("/api/embed", json=body).status_code == 200
        server.ingest("a", tmp_path / "documents")
        assert server.query("a", "text")
        assert server.http.get("/ready").status_code == 200
        status = Path(f"/proc/{server.pid}/status").read_text(encoding="utf-8")
        log = server.log()
    loaded = set(re.findall(r"import time:.*\|\s+([A-Za-z_][\w.]*)$", log, flags=re.MULTILINE))
    assert "embedserve.bootstrap" in loaded, "the list of imports is there"
    assert not {name for name in loaded if name.partition(".")[0] in TRAINING_STACK}
    # The attempt at `openvino.tools.ovc` is listed too; what lies within was never reached.
    reporting = ("openvino_telemetry", "openvino.tools.ovc.")
    assert not {name for name in loaded if name.startswith(reporting)}
    assert len(loaded & ENGINES) == 1, "the engine of the model that serves, and no other"
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    assert int(found[1]) / 1024 <= MEMORY_MB


def test_serving_connects_to_this_machine_only(home: Path) -> None:
    """Every address that an interpreter of the server connects to or looks up is loopback."""
    hook = home.parent / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import sys\n"
        "def watch(event, args):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname'):\n"
        "        print('NETWORK', event, args[-1] if event == 'socket.connect' else args[0],\n"
        "              file=sys.stderr, flush=True)\n"
        "sys.addaudithook(watch)\n",
        encoding="utf-8",
    )
    user = home.parent / "user"
    user.mkdir()
    settings = {"PYTHONPATH": str(hook), "HOME": str(user)}
    with LiveServer(home, settings=settings) as server:
        server.http.put("/indexes/a", json={}).raise_for_status()
        assert server.query("a", "anything") == []
        log = server.log()
    seen = re.findall(r"NETWORK \S+ (.*)", log)
    assert seen, "the hook was installed"
    outside = [
        line for line in seen if "127.0.0.1" not in line and not line.startswith(("/", "b'/"))
    ]
    assert outside == []
    # Collectors leave an id here before they call out: onnxruntime's, which works below Python,
    # and OpenVINO's.
    assert list(user.rglob("*")) == [], "no library keeps anything in the user's home"


def test_environment_of_the_tests_has_no_settings() -> None:
    assert not [name for name in environment() if name.startswith("EMBEDSERVE_")]
