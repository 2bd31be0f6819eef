"""Real disks that are full or read-only: `scripts/test tests/faults/test_disks.py --all-faults`.

Needs the right to mount; skipped, loudly, without it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.disks import disk, fill, make_read_only
from tests.faults.test_storage_at_fault import (
    asked,
    chroma_pid,
    wait_for_problem,
    wait_until_well,
)
from tests.live import LiveServer, environment

WAIT_S = 60
CHROMA_IMPATIENT = {"EMBEDSERVE_CHROMA_TIMEOUT_S": "3"}


@pytest.fixture
def documents(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Two folders, `few` and `more`."""
    if not request.config.getoption("--all-faults"):
        pytest.skip("SLOW: disks are mounted with --all-faults only")
    folder = tmp_path / "documents"
    for name, count in (("few", 1), ("more", 30)):
        (folder / name).mkdir(parents=True)
        (folder / name / "otters.md").write_text("Otters hold hands while they sleep.\n")
        for number in range(count):
            text = "\n\n".join(f"Order {number} has {n * 37} parts." for n in range(60))
            (folder / name / f"{number}.txt").write_text(text)
    return folder


@pytest.fixture
def small_home(documents: Path, model_home: Path, tmp_path: Path) -> Iterator[Path]:
    """A home on a disk of 24 MiB of its own; the server's log lies beside it."""
    with disk(tmp_path / "home", 24) as home:
        (home / "models").symlink_to(model_home / "models")
        yield home


def start(home: Path) -> "subprocess.CompletedProcess[str]":
    """Run a server that is not expected to come up."""
    command = [sys.executable, "-m", "embedserve", "serve", "--port", "0", "--home", str(home)]
    return subprocess.run(
        command, cwd="/", env=environment(), capture_output=True, text=True, timeout=WAIT_S
    )


def test_a_disk_that_is_full_in_the_middle(small_home: Path, documents: Path) -> None:
    with LiveServer(small_home, allow=[documents], settings=CHROMA_IMPATIENT) as server:
        server.ingest("notes", documents / "few")
        ballast = fill(small_home, left_bytes=200 * 1024)
        reply = server.http.post("/indexes/notes/ingest", json={"path": str(documents / "more")})
        assert reply.status_code == 202, reply.text
        job = wait_for_problem(server, reply.json()["id"])
        assert "is full" in job["problem"]
        asked(server)
        upload = server.http.post(
            "/indexes/notes/documents", files={"f": ("a.txt", b"x" * 400_000)}
        )
        assert upload.status_code == 503
        assert "No space left on device" in upload.json()["error"]
        ballast.unlink()
        ended = server.wait_for_job(job["id"])
        assert ended["status"] == "succeeded"
        assert ended["counts"] == {"added": 31}
        wait_until_well(server)
        checked = server.http.post("/indexes/notes/check", json={}).text
        assert '"faults":[]' in checked
    assert server.process.returncode == 0


def test_a_server_that_stops_and_starts_on_a_full_disk(small_home: Path, documents: Path) -> None:
    """Its catalog writes into the room that it has; Chroma is started when there is some again."""
    with LiveServer(small_home, allow=[documents], settings=CHROMA_IMPATIENT) as server:
        server.ingest("notes", documents / "few")
        ballast = fill(small_home, left_bytes=0)
        asked(server)
    assert server.process.returncode == 0
    assert "Traceback" not in server.log(), server.log()
    ballast.unlink()
    fill(small_home, left_bytes=0)  # what the stop has tidied up as well
    with LiveServer(small_home, allow=[documents], settings=CHROMA_IMPATIENT) as server:
        assert asked(server)["exact"]
        assert "Chroma could not be started: [Errno 28] No space left" in server.log()
        ballast.unlink()
        wait_until_well(server)


def test_a_read_only_home(small_home: Path, documents: Path) -> None:
    with LiveServer(small_home, allow=[documents]) as server:
        server.ingest("notes", documents / "few")
    make_read_only(small_home)
    failed = start(small_home)
    assert failed.returncode == 1
    assert "Read-only file system" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_disk_of_chroma_alone_that_is_full(documents: Path, home: Path, tmp_path: Path) -> None:
    """With EMBEDSERVE_HOME on one disk and `chroma/` on another; it dies meanwhile as well."""
    with (
        disk(home / "chroma", 24) as folder,
        LiveServer(home, allow=[documents], settings=CHROMA_IMPATIENT) as server,
    ):
        server.ingest("notes", documents / "few")
        ballast = fill(folder, left_bytes=8 * 1024)
        reply = server.http.post("/indexes/notes/ingest", json={"path": str(documents / "more")})
        server.wait_for_log("answers, but stores nothing")
        assert asked(server)["exact"]
        os.kill(chroma_pid(server), 9)
        server.wait_for_log("was ended by signal 9")
        time.sleep(5)  # it is started again and again, and its folder is not to blame
        assert not list(home.glob("chroma.damaged-*"))
        ballast.unlink()
        assert server.wait_for_job(reply.json()["id"])["status"] == "succeeded"
        wait_until_well(server)
    assert server.process.returncode == 0
