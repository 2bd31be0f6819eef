"""A thread that looks after something when it is due, and sleeps in between."""

import time
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Lock, Thread

# A lock takes no longer timeout than some decades; to look once a day costs nothing.
_LONGEST_SLEEP_S = 24 * 3600.0


class Alarm:
    """Call `look` when it is woken, and at the time that `look` gave, of `time.monotonic`.

    None from `look` means: not before the next `wake`. Holds its owner weakly and ends with it.
    """

    def __init__(self, look: Callable[[], float | None], *, name: str) -> None:
        """Take a bound method."""
        self._name = name
        self._look = weakref.WeakMethod(look)
        # The one queue that may be put into by what runs when an object dies, at any moment.
        self._wakes: SimpleQueue[bool] = SimpleQueue()
        self._thread: Thread | None = None
        self._lock = Lock()
        weakref.finalize(self, self._wakes.put, False).atexit = False

    def wake(self) -> None:
        """Have it look at once."""
        with self._lock:
            if self._thread is None:
                arguments = (self._look, self._wakes)
                self._thread = Thread(target=_watch, args=arguments, name=self._name, daemon=True)
                self._thread.start()
        self.nudge()

    def nudge(self) -> None:
        """Have it look at once if it was woken ever; takes no lock, so that a finalizer may."""
        self._wakes.put(True)

    def close(self) -> None:
        """End the thread, soon."""
        self._wakes.put(False)


def _watch(
    look: "weakref.WeakMethod[Callable[[], float | None]]", wakes: "SimpleQueue[bool]"
) -> None:
    due_s: float | None = None
    while True:
        try:
            if not wakes.get(timeout=_sleep_s(due_s)):
                return
        except Empty:
            pass
        method = look()
        if method is None:
            return
        due_s = method()
        del method  # else the sleeping thread keeps the owner alive


def _sleep_s(due_s: float | None) -> float | None:
    if due_s is None:
        return None
    return min(max(0.0, due_s - time.monotonic()), _LONGEST_SLEEP_S)
