"""Small batches become larger ones while nobody waits for them.

Files are committed one by one, some dozens a second. A call of the vector index costs more the
larger the index is, however little it carries: .7 s for 30,000 vectors, as much as carrying 300.
"""

import time
from collections.abc import Callable
from threading import Condition

LINGER_S = 20.0
"""What is committed during a job is in the vector index so much later at most."""
POLL_S = 1.0


class Pace:
    """How soon a worker takes up its next batch; shares the worker's condition."""

    def __init__(
        self,
        changed: Condition,
        *,
        enough: int,
        waiting: Callable[[], int],
        linger_s: float = LINGER_S,
        poll_s: float = POLL_S,
    ) -> None:
        """Let batches of `enough` changes form; `waiting` counts what is there for the next."""
        self._changed = changed
        self._enough = enough
        self._waiting = waiting
        self._linger_s = linger_s
        self._poll_s = poll_s
        self._has_applied = False
        self._is_urgent = False

    def hurry(self) -> None:
        """Tell that somebody waits for the next batch."""
        with self._changed:
            self._is_urgent = True
            self._changed.notify_all()

    def begin(self) -> None:
        """Note that a pass begins."""
        self._is_urgent = False
        self._has_applied = False

    def applied(self) -> None:
        """Note that the pass has carried something: more is likely to come."""
        self._has_applied = True

    def linger(self) -> None:
        """Wait after a pass that carried something, until enough has come or somebody waits."""
        until = time.monotonic() + (self._linger_s if self._has_applied else 0)
        while (left_s := until - time.monotonic()) > 0 and self._waiting() < self._enough:
            with self._changed:
                if self._changed.wait_for(lambda: self._is_urgent, min(self._poll_s, left_s)):
                    return
