"""The processes of one server: found below it in /proc, killed one by one, never by name."""

import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

GONE_S = 20
CHROMA, WORKER = "chroma_launcher.py", "embedserve.ingest.extract_worker"
"""What stands on the command line of a Chroma child and of an extraction worker."""


def children(pid: int, program: str = "") -> list[int]:
    """Return the children of a process, those alone that run `program` where it is given."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _parent(int(entry.name)) == pid:
            arguments = _command(int(entry.name)).split("\0")
            if not program or any(argument.endswith(program) for argument in arguments):
                found.append(int(entry.name))
    return sorted(found)


def kill_child(pid: int, parent: int) -> bool:
    """`kill -9` a process; False when it is no child of `parent` any more."""
    # The descriptor names this very process, even if its number is given away in between.
    with suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            if _parent(pid) == parent:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                return True
        finally:
            os.close(descriptor)
    return False


def kill_all(server: int, chance: random.Random) -> None:
    """`kill -9` a server, a child of this process, and all its children, in any order."""
    parents = {server: os.getpid()} | dict.fromkeys(children(server), server)
    family = list(parents)
    chance.shuffle(family)
    for pid in family:
        # Where the server went first, the kernel has killed its children.
        kill_child(pid, parents[pid])


def wait_until_nothing_runs_in(home: Path) -> None:
    """Wait until no process has the home in its command line: no orphans."""
    deadline = time.monotonic() + GONE_S
    while left := _processes_of(home):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.02)


def _processes_of(home: Path) -> Sequence[str]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    commands = {pid: _command(pid) for pid in pids}
    return [
        f"{pid} {command}"
        for pid, command in commands.items()
        if str(home) in command and _parent(pid) is not None
    ]


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""  # it ended while we looked


def _parent(pid: int) -> int | None:
    """Return the parent of a process; None when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The program's name stands in brackets and may hold anything; see proc(5).
    state, parent = stat.rpartition(")")[2].split()[:2]
    return None if state in "ZX" else int(parent)
