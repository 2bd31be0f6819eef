"""Whether a job has to stop: asked often, by every thread of it, and cheap to ask."""

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Event
from typing import TypeVar

POLL_S = 0.2
"""A cancelled job notices it within that time, whatever it waits for."""

T = TypeVar("T")


class JobInterruptedError(Exception):
    """The job was cancelled, or the server is stopping."""


class Interruption:
    """Tell whether to stop; once it does, it stays so."""

    def __init__(self, is_stopping: Callable[[], bool], is_cancelled: Callable[[], bool]) -> None:
        """Ask `is_cancelled`, which reads the catalog, a few times a second at most."""
        self._is_stopping = is_stopping
        self._is_cancelled = is_cancelled
        self._over = Event()
        self._asked_s = -POLL_S

    def __call__(self) -> bool:
        """Tell whether to stop."""
        # Several threads may ask the catalog at once; that does no harm.
        if not self._over.is_set() and time.monotonic() - self._asked_s >= POLL_S:
            self._asked_s = time.monotonic()
            if self._is_cancelled():
                self._over.set()
        return self._over.is_set() or self._is_stopping()

    def check(self) -> None:
        """Raise JobInterruptedError when it is time to stop."""
        if self():
            raise JobInterruptedError

    def result(self, future: Future[T]) -> T:
        """Wait for a future; cancel it and raise JobInterruptedError when it is time to stop."""
        while not future.done():
            if self():
                future.cancel()
                raise JobInterruptedError
            wait([future], POLL_S)
        return future.result()

    def pause(self, seconds: float) -> None:
        """Wait, no longer than until another thread sees that it is time to stop."""
        self._over.wait(seconds)
