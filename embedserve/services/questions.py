"""Questions that one thread answers between two steps of its own work."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import TypeVar

from embedserve.errors import OverloadedError

T = TypeVar("T")


class Questions:
    """What others want to have run in a worker's thread; every future gets its end."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []
        self._is_closed = False
        self._lock = Lock()

    def ask(self, question: Callable[[], T]) -> Future[T]:
        """Have something run; the future holds what it returned or raised.

        OverloadedError when the worker stops first.
        """
        answer: Future[T] = Future()

        def run() -> None:
            if self._is_closed:
                answer.set_exception(OverloadedError("The server is stopping. Ask it again later."))
                return
            try:
                answer.set_result(question())
            except Exception as error:  # whoever asked is told
                answer.set_exception(error)

        with self._lock:
            if not self._is_closed:
                self._waiting.append(run)
                return answer
        run()
        return answer

    def answer(self) -> None:
        """Run what waits, in the calling thread."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for run in waiting:
            run()

    def close(self) -> None:
        """Refuse what waits and what is asked from now on."""
        with self._lock:
            self._is_closed = True
        self.answer()
