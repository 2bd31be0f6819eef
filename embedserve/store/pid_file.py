"""Remember a child process on disk, so that the next run can end it if this one could not."""

import json
import os
import signal
import time
from pathlib import Path

GONE_WITHIN_S = 5.0
POLL_S = 0.02


def write_pid_file(path: Path, pid: int) -> None:
    """Note `pid` with its start time, which tells it from a later process of the same number."""
    path.write_text(json.dumps({"pid": pid, "start_time": _start_time(pid)}), encoding="utf-8")


def end_left_over(path: Path, argument: str) -> int | None:
    """Kill the process that `path` notes, if it lives on, and return its pid.

    Only a process with the noted start time and with `argument` on its command line is touched.
    Without `/proc` nothing is looked for.
    """
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        pid, start_time = int(noted["pid"]), str(noted["start_time"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no former run, or one that was cut off while it wrote the note
    path.unlink(missing_ok=True)
    if not start_time or _start_time(pid) != start_time or argument not in _arguments(pid):
        return None
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + GONE_WITHIN_S
    # It is no child of ours, so there is no event to wait for.
    while _start_time(pid) == start_time and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return pid


def _start_time(pid: int) -> str:
    """Return the clock ticks between boot and the start of a process, "" when it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # The second field is the program's name in brackets and may hold anything; see proc(5).
    fields = stat[stat.rindex(")") + 2 :].split()
    state, start_time = fields[0], fields[19]
    return "" if state == "Z" else start_time


def _arguments(pid: int) -> list[str]:
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
    except OSError:
        return []
