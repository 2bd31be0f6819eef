"""What a house and its children take, watched from outside: memory and processor time by part."""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scripts.stress_report.processes import cpu_s, family

_EVERY_S = 1.0
PARTS = {"extract_worker": "extraction", "chroma": "Chroma"}
"""What a command line tells, and how the part is called; all else is the server."""


@dataclass
class Peaks:
    """The most that was seen at once, of all and of each part, in bytes."""

    together: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    """Seconds of processor time by part, of those processes that were there at the end."""

    def note(self, pid: int) -> None:
        """Look once."""
        now: Counter[str] = Counter()
        for member in family(pid):
            if part := _part(member):
                now[part] += _proportional_bytes(member)
        self.together = max(self.together, sum(now.values()))
        for part, size in now.items():
            self.parts[part] = max(self.parts.get(part, 0), size)


@contextmanager
def watched(pid: int) -> Iterator[Peaks]:
    """Watch a process and all that descend from it."""
    peaks, is_over = Peaks(), threading.Event()
    before = _cpu(pid)

    def watch() -> None:
        while not is_over.wait(_EVERY_S):
            peaks.note(pid)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peaks
    finally:
        is_over.set()
        watcher.join()
        for part, seconds in _cpu(pid).items():
            peaks.cpu_s[part] = seconds - before.get(part, 0.0)


def _cpu(pid: int) -> dict[str, float]:
    used: dict[str, float] = {}
    for member in family(pid):
        if part := _part(member):
            used[part] = used.get(part, 0.0) + cpu_s(member)
    return used


def _part(pid: int) -> str:
    """Name what a process is; an empty name: it has ended."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
    return next((part for mark, part in PARTS.items() if mark in command), "server")


def _proportional_bytes(pid: int) -> int:
    """Return a process's memory, what it shares with others counted in parts."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    pss = next((line for line in lines if line.startswith("Pss:")), "Pss: 0")
    return int(pss.split()[1]) * 1024


def idle_share() -> float:
    """Return the load of the last minute for each core."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)
