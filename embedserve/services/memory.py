"""How much memory a process may use and holds, and how to give back what it no longer does."""

import contextlib
import ctypes
import os
import resource
import sys
import time
from pathlib import Path
from threading import Lock

from embedserve.services.alarm import Alarm

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")

# Whoever frees much often does so again at once, and would only have to ask for the pages anew.
_QUIET_S = 1.0
# A job frees something with every file: it takes some 30 ms in a thread of its own, and gives back
# 20 MB each time.
_AT_LEAST_EVERY_S = 5.0


def available_bytes(own_cgroup: Path = OWN_CGROUP, cgroups: Path = CGROUPS) -> int:
    """Return the memory that this process may use: the machine's, or less by a cgroup's limit."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(own_cgroup, cgroups)])


def resident_bytes(pid: int | None = None) -> int:
    """Return what a process holds, this one unless told; raise OSError when it is gone.

    Where Linux is not, the most that this process ever held.
    """
    try:
        status = Path(f"/proc/{pid or 'self'}/statm").read_text(encoding="ascii")
    except OSError:
        if pid is not None:
            raise
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE")


class FreedMemory:
    """Hands freed pages back once nobody has freed much for a second, or every few seconds.

    Safe across threads.
    """

    def __init__(self) -> None:
        self.times_given_back = 0
        self._due_s: float | None = None
        self._latest_s = 0.0
        self._lock = Lock()
        self._alarm = Alarm(self._look, name="memory")

    def tell(self) -> None:
        """Say that much was freed just now."""
        with self._lock:
            now, is_waiting = time.monotonic(), self._due_s is not None
            if not is_waiting:
                self._latest_s = now + _AT_LEAST_EVERY_S
            self._due_s = min(now + _QUIET_S, self._latest_s)
        if not is_waiting:  # else it looks at the time before it sleeps on
            self._alarm.wake()

    def close(self) -> None:
        """Give nothing back any more."""
        self._alarm.close()

    def _look(self) -> float | None:
        with self._lock:
            if self._due_s is None or self._due_s > time.monotonic():
                return self._due_s
            self._due_s = None
        _give_back()
        self.times_given_back += 1
        return None


def _give_back() -> None:
    """Hand freed pages back to the system; glibc keeps those of small blocks otherwise."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _limits(own_cgroup: Path, cgroups: Path) -> list[int]:
    """Return the limits of the process's cgroup and of all above it; cgroup v2, then v1."""
    places = [cgroups / "memory.max", cgroups / "memory" / "memory.limit_in_bytes"]
    with contextlib.suppress(OSError, ValueError):
        for line in own_cgroup.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                root = cgroups / controllers
                file = "memory.limit_in_bytes" if controllers else "memory.max"
                own = root / path.lstrip("/")
                places += [
                    folder / file for folder in (own, *own.parents) if root in folder.parents
                ]
    found = []
    for place in places:
        with contextlib.suppress(OSError, ValueError):  # absent, or `max`
            found.append(int(place.read_text(encoding="ascii")))
    return found
