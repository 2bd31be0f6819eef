"""One owner for each home folder: a lock that dies with its process, and its owner's address.

An owner that means to leave while others may be using it, as a command does, says so first and
then waits for its guests: `HomeLock.see_off` on one side, `guest_of` on the other.
"""

import contextlib
import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from embedserve.errors import StartupError
from embedserve.store.closing import Closing

TRY_S = 0.2
"""How long a start goes on asking for a lock that it does not get at once.

`owner_of` can only ask by taking a shared lock for some microseconds: flock has no question
without it, and the locks that have one are lost when any part of the process closes the file, or
exist on Linux only. One start in fifty met such a question in a loop of them (measured).
"""
TRY_EVERY_S = 0.02  # a lock of another process gives no event that a wait with an end could use
CONTENT_BYTES = 512  # always that many, so that one write replaces all there was


@dataclass(frozen=True)
class Owner:
    """The process that holds a home."""

    pid: int
    url: str | None
    """Where it serves; None while it is starting."""
    key: str = field(default="", compare=False, repr=False)
    """What a caller there shows to have read this file, as only the home's owner can."""


class HomeLockedError(StartupError):
    """Another process owns the home."""

    def __init__(self, home: Path, owner: Owner) -> None:
        where = f", serving at {owner.url}" if owner.url else ""
        super().__init__(
            f"`{home}` is in use by process {owner.pid}{where}. One server owns a home: stop that "
            "one, or give this one a home of its own (`--home DIR`)."
        )
        self.owner = owner


class HomeLock(Closing):
    """Hold `home/lock` until released; the kernel releases it even after `kill -9`."""

    def __init__(self, home: Path) -> None:
        """Take the lock, or raise HomeLockedError; create the folder (mode 0700) if needed."""
        self._home = home
        self.key = secrets.token_urlsafe(32)
        try:
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._descriptor = os.open(_path(home), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.fchmod(self._descriptor, 0o600)  # whatever a former owner of the file let others do
        except OSError as error:
            raise StartupError(
                f"Home `{home}` cannot be used: {error.strerror}. Choose another with `--home DIR`."
            ) from error
        if not _lock(self._descriptor, TRY_S):
            os.close(self._descriptor)
            raise HomeLockedError(home, _read(home))
        self._write(None)

    def announce(self, url: str) -> None:
        """Tell other processes where the owner serves."""
        self._write(url)

    def see_off(self, timeout_s: float) -> None:
        """Take no new guests, and wait for those there are; for no longer than `timeout_s`."""
        self._write(None)
        with _guests(self._home) as descriptor:
            _lock(descriptor, timeout_s)

    def close(self) -> None:
        """Give the home back."""
        with contextlib.suppress(OSError):
            os.close(self._descriptor)

    def _write(self, url: str | None) -> None:
        content = json.dumps({"pid": os.getpid(), "url": url, "key": self.key}).encode()
        os.pwrite(self._descriptor, content.ljust(CONTENT_BYTES), 0)


def owner_of(home: Path) -> Owner | None:
    """Return who holds the home now, or None when nobody does."""
    try:
        descriptor = os.open(_path(home), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(home)
    finally:
        os.close(descriptor)
    return None


def owner_key(home: Path) -> str:
    """Return what shows the home's owner that a caller can read the home; empty: there is none."""
    return _read(home).key


@contextmanager
def guest_of(home: Path) -> Iterator[Owner | None]:
    """Return who holds the home; while it is used here, an owner that sees its guests off stays."""
    with ExitStack() as stay:
        try:
            descriptor = stay.enter_context(_guests(home))
        except OSError:
            yield owner_of(home)  # no home yet, or one that says better when it is opened
            return
        # Who wants it alone lets go of it at once, having told that nobody is to come.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield owner_of(home)


@contextmanager
def _guests(home: Path) -> Iterator[int]:
    """Open the file that guests lock together, and an owner that leaves alone."""
    descriptor = os.open(home / "guests", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, timeout_s: float) -> bool:
    """Take the lock, or find that somebody holds it for longer than that."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(TRY_EVERY_S)


def _path(home: Path) -> Path:
    return home / "lock"


def _read(home: Path) -> Owner:
    try:
        value = json.loads(_path(home).read_text(encoding="utf-8"))
        return Owner(pid=int(value["pid"]), url=value["url"], key=value.get("key", ""))
    except (OSError, ValueError, KeyError, TypeError):
        return Owner(pid=0, url=None)  # the first owner has not written yet
