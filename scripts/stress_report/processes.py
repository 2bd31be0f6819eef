"""What the kernel tells about processes, read from `/proc`: memory, processor time, descent."""

import asyncio
import os
import resource
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from embedserve.services.memory import resident_bytes

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it, as they are now."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(_stat(int(entry.name))[1])
            except OSError:
                continue  # it ended while we looked
    found = [pid]
    for one in found:  # grows as it goes
        found += [child for child, parent in parents.items() if parent == one]
    return found


def is_running(pid: int) -> bool:
    """Tell whether a process is there and no zombie."""
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


@asynccontextmanager
async def watched_memory(pid: int, samples: list[int], *, every_s: float) -> AsyncIterator[None]:
    """Note the memory of a process again and again."""

    async def sample() -> None:
        while True:
            samples.append(resident_bytes(pid))
            await asyncio.sleep(every_s)

    task = asyncio.create_task(sample())
    try:
        yield
    finally:
        task.cancel()
        samples.append(resident_bytes(pid))


def most_open_files() -> int:
    """Return how many files this process may have open when it asks for it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


@contextmanager
def open_files(count: int) -> Iterator[None]:
    """Let this process have `count` files open for a while; raise SystemExit if it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if count > most_open_files():
        raise SystemExit(f"{count} open files are needed, {hard} are allowed: see `ulimit -Hn`.")
    if soft == resource.RLIM_INFINITY or soft >= count:
        yield
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _stat(pid: int) -> list[str]:
    """Return the fields of `/proc/PID/stat` from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
