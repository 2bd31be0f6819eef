"""Who used the machine meanwhile: figures of a busy machine say little."""

import os
import platform
import time
from pathlib import Path

from embedserve.engine.cpu import CPU_INFO

_TICK = os.sysconf("SC_CLK_TCK")


class Watch:
    """Counts from when it is made."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._busy_s, self._own_s = _busy_s(), _own_s()

    def others(self) -> float:
        """Return the share of the machine that others used; children count once they ended."""
        busy_s, own_s = _busy_s() - self._busy_s, _own_s() - self._own_s
        passed_s = (time.perf_counter() - self._started) * (os.cpu_count() or 1)
        return max(0.0, (busy_s - own_s) / passed_s)


def cpu_name() -> str:
    """Return the processor's name as the system gives it."""
    try:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, name = line.partition(":")
        if key.strip() == "model name":
            return name.strip()
    return platform.processor() or platform.machine()


def _busy_s() -> float:
    """Return all cores' seconds since boot that were not idle; the host's own use counts."""
    first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    user, nice, system, _, _, *others = (int(field) for field in first.split()[1:9])
    return (user + nice + system + sum(others)) / _TICK


def _own_s() -> float:
    # The first four: user and system of this process, user and system of ended children.
    return sum(os.times()[:4])
