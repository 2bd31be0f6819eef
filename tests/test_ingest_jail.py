import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the jail is Linux's")

PROBE = """
import json, os, socket, sys
from embedserve.ingest import jail
held = jail.apply(512 * 1024 * 1024, int(sys.argv[1]))
def tried(action):
    try:
        action()
    except BaseException as error:
        return type(error).__name__
    return "allowed"
def connect():
    socket.create_connection(("127.0.0.1", int(sys.argv[2])), 5).close()
def fork_and_connect():
    if (child := os.fork()) == 0:
        os._exit(0 if tried(connect) == "allowed" else 1)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise PermissionError
print(json.dumps({"held": held, "outcomes": {
    "read": tried(lambda: open("/etc/hostname").read()),
    "list": tried(lambda: os.listdir("/")),
    "write": tried(lambda: open(sys.argv[3], "w")),
    "execute": tried(lambda: os.execv("/bin/true", ["true"])),
    "connect": tried(connect),
    "connect from a child": tried(fork_and_connect),
    "signal the parent": tried(lambda: os.kill(int(sys.argv[1]), 0)),
    "memory": tried(lambda: bytearray(600 * 1024 * 1024)),
}}))
"""


def test_a_jailed_process_reaches_no_file_no_network_and_no_process(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-c", PROBE, str(os.getpid()), str(port), str(tmp_path / "new")],
            capture_output=True,
            text=True,
            check=True,
        )
    report = json.loads(done.stdout)
    held, outcomes = report["held"], report["outcomes"]
    assert outcomes["memory"] == "MemoryError"
    if "no_files" not in held or "network_namespace" not in held:
        pytest.skip(f"this kernel grants only {held}")
    refused = {name: outcome for name, outcome in outcomes.items() if outcome != "allowed"}
    assert refused.keys() == outcomes.keys()


THREADS = """
import os, sys
from embedserve.ingest import extract_worker, library
library.preload()
print(len(os.listdir("/proc/self/task")), "numpy" in sys.modules)
"""


def test_the_jail_is_closed_by_the_only_thread() -> None:
    done = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, check=True
    )
    assert done.stdout == "1 False\n"


PARENT = """
import sys, threading
from pathlib import Path
from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.limits import ExtractLimits
pool = ExtractorPool(1, ExtractLimits(timeout_s=600))
pool.protections()
print("ready", flush=True)
pool.extract(Path(sys.argv[1]), Path(sys.argv[1]))
"""


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_worker_does_not_survive_its_parent(tmp_path: Path, is_busy: bool) -> None:
    path = tmp_path / "slow.xml"
    path.write_text("<a>" + "<b>x</b>" * (4_000_000 if is_busy else 1) + "</a>")
    code = PARENT if is_busy else PARENT + "\nthreading.Event().wait()"
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        workers = children_of(parent.pid)
        time.sleep(0.3)  # so that a busy one is in the middle
        os.kill(parent.pid, signal.SIGKILL)
    assert len(workers) == 1
    deadline = time.monotonic() + 10
    while is_running(workers[0]) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(workers[0])


def children_of(pid: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(status.parent.name))
    return found


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
