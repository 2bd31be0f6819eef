"""The child process under the faults it will meet: kills, left-overs, damaged folders."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from embedserve.errors import VectorStoreRefusedError
from embedserve.services.memory import resident_bytes
from embedserve.store import chroma_launcher
from embedserve.store.chroma import ChromaIndex
from embedserve.store.chroma_process import ChromaProcess, ChromaState, RestartListener
from embedserve.store.pid_file import write_pid_file
from tests.store_samples import unit_vectors, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, as the server does")

PARENT = """
import pathlib, sys, time
from embedserve.store.chroma_process import ChromaProcess
folder = pathlib.Path(sys.argv[1])
process = ChromaProcess(folder / "chroma", folder / "log", timeout_s=30)
process.start()
print(process.pid, flush=True)
time.sleep(60)
"""


TRIMS = """
import ctypes, pathlib, sys
sys.path.insert(0, str(pathlib.Path(sys.argv[1]).parent))
import chroma_launcher
from threading import Thread
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
blocks = [libc.malloc(1000) for _ in range(64 * 1024)]
for block in blocks:
    ctypes.memset(block, 1, 1000)
blocks.pop()  # holds the others in the heap
for block in blocks:
    libc.free(block)
chroma_launcher.TRIM_EVERY_S = 0.1
Thread(target=chroma_launcher.trim_now_and_then, daemon=True).start()
print("freed", flush=True)
sys.stdin.read()
"""


def test_memory_that_chroma_frees_goes_back_to_the_system() -> None:
    command = [sys.executable, "-P", "-c", TRIMS, chroma_launcher.__file__]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
        assert child.stdout
        assert child.stdout.readline() == "freed\n"
        wait_until(lambda: resident_bytes(child.pid) < 40 * 2**20, within_s=20)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@contextmanager
def running(folder: Path, *, on_restart: RestartListener | None = None) -> Iterator[ChromaProcess]:
    process = ChromaProcess(folder / "chroma", folder / "log", timeout_s=30, on_restart=on_restart)
    try:
        process.start()
        yield process
    finally:
        process.stop()


def is_up_as_another(process: ChromaProcess, former: int) -> bool:
    return process.state.status == "up" and process.pid not in (None, former)


def kill(process: ChromaProcess) -> int:
    pid = process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def test_it_starts_and_stops_and_keeps_what_it_holds(tmp_path: Path) -> None:
    for _ in range(2):
        with running(tmp_path) as process:
            assert process.state == ChromaState("up")
            pid = process.pid
            index = ChromaIndex(lambda: process.url, timeout_s=10)
            index.upsert(1, np.array([1]), unit_vectors(1))
            assert index.count(1) == 1
            index.close()
        assert pid is not None
        assert not is_alive(pid)
        assert process.state == ChromaState("down", "was asked to end")
        assert not (tmp_path / "chroma.pid").exists()


def test_a_killed_child_is_started_again_and_its_owner_is_told(tmp_path: Path) -> None:
    told: list[bool] = []

    def listen(*, was_emptied: bool) -> None:
        told.append(was_emptied)

    with running(tmp_path, on_restart=listen) as process:
        index = ChromaIndex(lambda: process.url, timeout_s=10)
        vectors = unit_vectors(3)
        index.upsert(1, np.array([1, 2, 3]), vectors)
        former = kill(process)
        wait_until(lambda: is_up_as_another(process, former), within_s=15)
        wait_until(lambda: told, within_s=5)
        assert told == [False]
        assert index.search(1, vectors[1], count=1)[0].id == 2
        index.close()


def test_a_frozen_child_is_replaced(tmp_path: Path) -> None:
    process = ChromaProcess(tmp_path / "chroma", tmp_path / "log", timeout_s=2)
    try:
        assert process.start().status == "up"
        former = process.pid
        assert former is not None
        os.kill(former, signal.SIGSTOP)
        wait_until(lambda: is_up_as_another(process, former), within_s=30)
        assert not is_alive(former)
    finally:
        process.stop()


def test_a_child_that_stores_nothing_is_told_from_one_that_is_down_and_started_anew(
    tmp_path: Path,
) -> None:
    with running(tmp_path) as process:
        index = ChromaIndex(lambda: process.url, timeout_s=3)
        index.upsert(1, np.array([1]), unit_vectors(1))
        former = process.pid
        assert former is not None
        with closing(sqlite3.connect(tmp_path / "chroma" / "chroma.sqlite3")) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(VectorStoreRefusedError, match="answers, but stores nothing"):
                index.upsert(1, np.array([2]), unit_vectors(1))
        process.renew()
        wait_until(lambda: is_up_as_another(process, former), within_s=15)
        index.upsert(1, np.array([2]), unit_vectors(1))
        again = process.pid
        process.renew()  # not twice in a minute
        wait_until(lambda: index.count(1) == 2, within_s=5)
        assert process.pid == again
        index.close()


def test_no_child_survives_its_parents_sudden_death(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    wait_until(lambda: not is_alive(pid), within_s=5)


def test_a_left_over_of_an_earlier_run_is_ended(tmp_path: Path) -> None:
    folder = tmp_path / "chroma"
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)", str(folder)]
    with subprocess.Popen(sleeper) as left_over:
        write_pid_file(tmp_path / "chroma.pid", left_over.pid)
        with running(tmp_path) as process:
            assert process.state.status == "up"
            assert left_over.wait(5) == -signal.SIGKILL


@pytest.mark.parametrize("note", ["another start", "another program", "no note"])
def test_a_process_that_only_shares_the_pid_is_left_alone(tmp_path: Path, note: str) -> None:
    argument = "elsewhere" if note == "another program" else str(tmp_path / "chroma")
    stranger = [sys.executable, "-c", "import time; time.sleep(60)", argument]
    with subprocess.Popen(stranger) as sleeper:
        path = tmp_path / "chroma.pid"
        write_pid_file(path, sleeper.pid)
        if note == "another start":
            path.write_text(json.dumps({"pid": sleeper.pid, "start_time": "1"}))
        elif note == "no note":
            path.write_text("{")
        with running(tmp_path) as process:
            assert process.state.status == "up"
            assert sleeper.poll() is None
        sleeper.kill()


def test_a_folder_it_cannot_start_from_is_moved_aside(tmp_path: Path) -> None:
    folder = tmp_path / "chroma"
    folder.mkdir()
    (folder / "chroma.sqlite3").write_bytes(b"damaged" * 1000)
    (tmp_path / "chroma.damaged-20200101T000000Z").mkdir()
    told: list[bool] = []

    def listen(*, was_emptied: bool) -> None:
        told.append(was_emptied)

    with running(tmp_path, on_restart=listen) as process:
        wait_until(lambda: process.state.status == "up" and told, within_s=30)
        assert told == [True]
        index = ChromaIndex(lambda: process.url, timeout_s=10)
        index.upsert(1, np.array([1]), unit_vectors(1))
        assert index.count(1) == 1
        index.close()
    [aside] = tmp_path.glob("chroma.damaged-*")
    assert (aside / "chroma.sqlite3").read_bytes().startswith(b"damaged")


@pytest.mark.parametrize("event", ["lost", "restart"])
def test_a_listener_that_fails_ends_nothing(tmp_path: Path, event: str) -> None:
    def fail(*, was_emptied: bool = False) -> None:
        raise RuntimeError("the listener is broken")

    process = ChromaProcess(
        tmp_path / "chroma",
        tmp_path / "log",
        timeout_s=30,
        on_lost=fail if event == "lost" else None,
        on_restart=fail if event == "restart" else None,
    )
    try:
        process.start()
        for _ in range(2):
            former = kill(process)
            wait_until(lambda former=former: is_up_as_another(process, former), within_s=15)  # type: ignore[misc]
    finally:
        process.stop()


def test_a_child_whose_note_cannot_be_written_is_not_left_running(tmp_path: Path) -> None:
    note = tmp_path / "chroma.pid"
    note.mkdir()
    process = ChromaProcess(tmp_path / "chroma", tmp_path / "log", timeout_s=30)
    try:
        state = process.start()
        assert state.status == "down"
        assert "chroma.pid" in state.reason
        assert process.pid is None
        assert children_on(tmp_path / "chroma") == []
        note.rmdir()
        wait_until(lambda: process.state.status == "up", within_s=30)
        assert len(children_on(tmp_path / "chroma")) == 1
    finally:
        process.stop()


def test_a_folder_that_cannot_be_moved_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / ("c" * 240)  # a name that takes no suffix
    folder.mkdir()
    (folder / "chroma.sqlite3").write_bytes(b"damaged" * 1000)
    process = ChromaProcess(folder, tmp_path / "log", timeout_s=30)
    try:
        assert process.start().status == "down"
        wait_until(lambda: "cannot be moved" in caplog.text, within_s=30)
        shutil.rmtree(folder)
        wait_until(lambda: process.state.status == "up", within_s=30)
    finally:
        process.stop()


def children_on(folder: Path) -> list[int]:
    """List the processes that have the folder on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(folder) in arguments:
            found.append(int(path.parent.name))
    return found
