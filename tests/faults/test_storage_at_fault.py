"""A disk that takes nothing more, and a Chroma that hangs or loses its folder, under a live server.

It goes on serving, says what is wrong, and is well again once that is over, without a restart.
With real mounts: `test_disks.py`.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.live import LiveServer, environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and signals as on Linux")

WELL_S = 60
# More than a few rows of the catalog take, and less than the document below.
ROOM_BYTES = 32 * 1024
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
WORDS = ("harbour", "lantern", "compass", "anchor", "rudder", "sailor", "tide", "gull")


@pytest.fixture(scope="module")
def faulted(model_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with an index `notes`, and a Chroma that has 3 seconds to answer."""
    folder = tmp_path_factory.mktemp("storage")
    (folder / "home").mkdir()
    (folder / "home" / "models").symlink_to(model_home / "models")
    (folder / "documents").mkdir()
    (folder / "documents" / "otters.md").write_text("Otters hold hands while they sleep.\n")
    settings = {"EMBEDSERVE_CHROMA_TIMEOUT_S": "3"}
    with LiveServer(folder / "home", allow=[folder], settings=settings) as server:
        assert server.ingest("notes", folder / "documents")["status"] == "succeeded"
        yield server
    assert server.process.returncode == 0
    assert "Traceback" not in server.log(), server.log()


def asked(server: LiveServer) -> dict[str, Any]:
    reply = server.http.post("/indexes/notes/query", json={"query": "What do otters do?", "k": 1})
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    assert "Otters" in found["hits"][0]["text"]
    return found


def wait_until_well(server: LiveServer) -> None:
    """Wait until every chunk is in the vector index and queries are answered from it."""
    deadline = time.monotonic() + WELL_S
    while True:
        counts = server.counts("notes")
        is_whole = counts["chunks"] == counts["reachable"] and not counts["pending"]
        if is_whole and not asked(server)["exact"]:
            assert server.http.get("/ready").status_code == 200
            return
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.1)


def chroma_pid(server: LiveServer) -> int:
    return int(json.loads((server.home / "chroma.pid").read_text())["pid"])


def test_a_job_waits_for_room_and_then_goes_on(faulted: LiveServer) -> None:
    large = faulted.home.with_name("large")
    large.mkdir()
    lines = [f"{WORDS[n % 8]} {n} {WORDS[n // 8 % 8]} {n * 7}." for n in range(500)]
    (large / "large.txt").write_text("\n\n".join(lines))
    wal = faulted.home / "catalog.sqlite3-wal"
    limit = wal.stat().st_size + ROOM_BYTES
    resource.prlimit(faulted.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        reply = faulted.http.post("/indexes/notes/ingest", json={"path": str(large)})
        assert reply.status_code == 202, reply.text
        job = wait_for_problem(faulted, reply.json()["id"])
        assert job["status"] in ("queued", "running")
        assert "catalog.sqlite3` failed" in job["problem"]
        assert "Check free space" in job["problem"]
        assert job["error"] is None
        assert faulted.http.get("/ready").status_code == 200
        asked(faulted)
        watching = subprocess.Popen(
            [sys.executable, "-m", "embedserve", "jobs", "watch", job["id"]],
            env=environment(EMBEDSERVE_HOME=str(faulted.home)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert watching.stderr is not None
        assert "It waits: The catalog" in watching.stderr.readline()
    finally:
        resource.prlimit(faulted.pid, resource.RLIMIT_FSIZE, UNLIMITED)
    ended = faulted.wait_for_job(job["id"])
    assert ended["status"] == "succeeded", ended
    assert ended["counts"] == {"added": 1}
    assert ended["problem"] is None
    assert watching.wait(WELL_S) == 0
    watching.stderr.close()
    assert "It goes on by itself" in faulted.log()
    wait_until_well(faulted)
    assert faulted.ingest("notes", large)["counts"] == {"unchanged": 1}


def wait_for_problem(server: LiveServer, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + WELL_S
    while True:
        job: dict[str, Any] = server.http.get(f"/jobs/{job_id}").json()
        if job["problem"]:
            return job
        assert time.monotonic() < deadline, (job, server.log())
        time.sleep(0.02)


def test_what_cannot_be_stored_is_refused_with_the_reason(faulted: LiveServer) -> None:
    resource.prlimit(faulted.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    try:
        for reply in (
            faulted.http.put("/indexes/other", json={}),
            faulted.http.post("/indexes/notes/documents", files={"f": ("a.txt", b"x" * 99_999)}),
        ):
            assert reply.status_code == 503, reply.text
            assert "space" in reply.json()["error"]
    finally:
        resource.prlimit(faulted.pid, resource.RLIMIT_FSIZE, UNLIMITED)
    assert faulted.http.put("/indexes/other", json={}).status_code == 201
    assert faulted.http.delete("/indexes/other").is_success


def test_a_chroma_that_hangs_is_replaced_and_queries_are_exact_until_then(
    faulted: LiveServer,
) -> None:
    wait_until_well(faulted)
    hung = chroma_pid(faulted)
    with ThreadPoolExecutor(1) as beside:
        os.kill(hung, signal.SIGSTOP)
        ready = beside.submit(faulted.http.get, "/ready")
        found = asked(faulted)
        assert ready.result().status_code == 503
    assert found["exact"]
    assert "compared exactly" in found["warnings"][0]
    wait_until_well(faulted)
    assert chroma_pid(faulted) != hung
    assert "gave no answer for 3 s" in faulted.log()


def test_a_chroma_whose_folder_is_deleted_is_filled_again(faulted: LiveServer) -> None:
    wait_until_well(faulted)
    shutil.rmtree(faulted.home / "chroma", ignore_errors=True)  # it may be writing just then
    faulted.wait_for_log("lost its folder")
    asked(faulted)
    wait_until_well(faulted)
    assert (faulted.home / "chroma" / "chroma.sqlite3").exists()
