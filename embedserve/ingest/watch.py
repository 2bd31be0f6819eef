"""See what changes in folders as it happens, and wait until it has settled. Reads no file."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import Event

from watchfiles import watch

TICK_MS = 1000
"""A watch gives nothing at least so often, so that its owner can look around."""
STEP_MS = 500
"""How often the watch looks whether something came: 2 wake-ups a second when nothing does."""
MAX_PATHS = 1000
"""Paths of a burst that are looked at one by one; of more, only the folders."""

Status = tuple[int, int] | None


def changes(roots: Iterable[str], stop: Event) -> Iterator[set[str]]:
    """Give the paths that change below the roots, an empty set every second, until `stop`.

    Raises OSError when the system can watch no more folders.
    """
    seen = watch(
        *roots,
        watch_filter=None,
        debounce=TICK_MS,
        step=STEP_MS,
        stop_event=stop,
        rust_timeout=TICK_MS,
        yield_on_timeout=True,
        raise_interrupt=True,
        ignore_permission_denied=True,
    )
    while True:
        try:
            found = next(seen, None)
        except RuntimeError as error:  # what the library raises when it gets no watch at all
            raise OSError(str(error)) from error
        if found is None:
            return
        yield {path for _, path in found}


@dataclass
class _Seen:
    status: Status
    since: float


class Settling:
    """Changed paths that wait until they have kept size and time for `settle_s`.

    One that never does (a log that grows) holds the others back for `patience_s` at most.
    """

    def __init__(
        self,
        *,
        settle_s: float,
        patience_s: float,
        status_of: Callable[[str], Status] | None = None,
    ) -> None:
        self._settle_s = settle_s
        self._patience_s = patience_s
        self._status_of = status_of or _status_of
        self._seen: dict[str, _Seen] = {}
        self._waits_since = 0.0

    def add(self, paths: Iterable[str], now: float) -> None:
        """Take paths that changed; a dot in front of a name, a scan skips."""
        for path in paths:
            if os.path.basename(path).startswith(".") and not path.endswith("ignore"):
                continue
            if len(self._seen) >= MAX_PATHS:
                path = os.path.dirname(path)
            if not self._seen:
                self._waits_since = now
            self._seen[path] = _Seen(self._status_of(path), now)

    def take(self, now: float) -> set[str]:
        """Return what has settled, when all has or patience is over; else nothing."""
        for path, seen in self._seen.items():
            status = self._status_of(path)
            if status != seen.status:
                seen.status, seen.since = status, now
        settled = {p for p, seen in self._seen.items() if now - seen.since >= self._settle_s}
        if len(settled) < len(self._seen) and now - self._waits_since < self._patience_s:
            return set()
        for path in settled:
            del self._seen[path]
        self._waits_since = now
        return settled


def folder_of(paths: Iterable[str], root: str) -> str:
    """Return the deepest folder below `root` (or it) that holds all paths and exists."""
    folder = os.path.commonpath([os.path.dirname(path) for path in paths])
    while folder != root and not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    inside = folder == root or folder.startswith(root.rstrip(os.sep) + os.sep)
    return folder if inside else root


def _status_of(path: str) -> Status:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns)
