"""Small batches become larger ones while nobody waits for them.

Files are committed one by one, some dozens a second, and a call of the vector index costs several
milliseconds on both sides, however little it carries.
"""

from threading import Condition

LINGER_S = 5.0
"""What is committed during a job is in the vector index so much later at most."""


class Pace:
    """How soon a worker takes up its next batch; shares the worker's condition."""

    def __init__(self, changed: Condition, *, enough: int, linger_s: float = LINGER_S) -> None:
        """After a batch of `enough` changes the next one is taken up at once."""
        self._changed = changed
        self._enough = enough
        self._linger_s = linger_s
        self._applied = 0
        self._is_urgent = False

    def hurry(self) -> None:
        """Tell that somebody waits for the next batch."""
        with self._changed:
            self._is_urgent = True
            self._changed.notify_all()

    def begin(self) -> None:
        """Note that a pass begins."""
        self._is_urgent = False
        self._applied = 0

    def applied(self, changes: int) -> None:
        """Count what the pass has carried."""
        self._applied += changes

    def linger(self) -> None:
        """Wait a moment after a small batch, unless somebody waits."""
        if 0 < self._applied < self._enough:
            with self._changed:
                self._changed.wait_for(lambda: self._is_urgent, self._linger_s)
