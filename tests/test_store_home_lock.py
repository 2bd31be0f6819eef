"""One owner for a home, and questions that never get in its way."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread, Timer

import pytest

from embedserve.errors import StartupError
from embedserve.store.home_lock import HomeLock, HomeLockedError, Owner, guest_of, owner_of

HOLDER = """
import pathlib, sys, time
from embedserve.store.home_lock import HomeLock
lock = HomeLock(pathlib.Path(sys.argv[1]))
lock.announce("http://127.0.0.1:1")
print("held", flush=True)
time.sleep(60)
"""


def test_a_home_has_one_owner_which_says_where_it_serves(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert owner_of(home) is None
    with HomeLock(home) as lock:
        assert owner_of(home) == Owner(os.getpid(), None)
        lock.announce("http://127.0.0.1:11434")
        assert owner_of(home) == Owner(os.getpid(), "http://127.0.0.1:11434")
        with pytest.raises(HomeLockedError, match="serving at http://") as caught:
            HomeLock(home)
        assert caught.value.owner.pid == os.getpid()
    assert owner_of(home) is None
    HomeLock(home).close()


def test_a_killed_owner_leaves_the_home_free(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert owner_of(tmp_path) == Owner(holder.pid, "http://127.0.0.1:1")
        holder.kill()
    assert owner_of(tmp_path) is None
    with HomeLock(tmp_path):
        assert owner_of(tmp_path) == Owner(os.getpid(), None)


def test_a_question_does_not_make_a_start_fail(tmp_path: Path) -> None:
    HomeLock(tmp_path).close()
    descriptor = os.open(tmp_path / "lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # as `owner_of` does, only longer
    Timer(0.05, os.close, [descriptor]).start()
    HomeLock(tmp_path).close()


def test_starts_succeed_beside_a_loop_of_questions(tmp_path: Path) -> None:
    has_ended = Event()
    seen: set[Owner | None] = set()

    def ask() -> None:
        while not has_ended.is_set():
            seen.add(owner_of(tmp_path))

    HomeLock(tmp_path).close()
    asker = Thread(target=ask)
    asker.start()
    for _ in range(300):
        with HomeLock(tmp_path) as lock:
            lock.announce("http://127.0.0.1:1")
    has_ended.set()
    asker.join()
    pids = {owner.pid for owner in seen if owner}
    assert pids <= {os.getpid()}, "never half of a note"


def test_a_home_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="--home DIR"):
        HomeLock(tmp_path / "file")


def test_an_owner_that_leaves_waits_for_its_guests(tmp_path: Path) -> None:
    left = Event()

    def leave() -> None:
        lock.see_off(timeout_s=30)
        left.set()

    with HomeLock(tmp_path) as lock:
        lock.announce("http://127.0.0.1:1")
        leaving = Thread(target=leave)
        with guest_of(tmp_path) as owner:
            assert owner == Owner(os.getpid(), "http://127.0.0.1:1")
            leaving.start()
            assert not left.wait(0.1)
            with guest_of(tmp_path) as late:  # finds nobody who serves
                assert late == Owner(os.getpid(), None)
        assert left.wait(10)
        leaving.join()
        with guest_of(tmp_path) as owner:
            assert owner == Owner(os.getpid(), None)


def test_a_guest_that_stays_too_long_is_left(tmp_path: Path) -> None:
    with HomeLock(tmp_path) as lock, guest_of(tmp_path):
        lock.see_off(timeout_s=0.05)


def test_a_home_that_is_not_there_has_no_owner(tmp_path: Path) -> None:
    with guest_of(tmp_path / "none") as owner:
        assert owner is None
    assert not (tmp_path / "none").exists()
