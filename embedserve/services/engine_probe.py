"""Does the engine come back, and does the default model give its known vector, within a time?"""

from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from threading import Lock

from embedserve.engine.scheduler import Scheduler
from embedserve.errors import ModelError, OverloadedError
from embedserve.services.encoders import Encoders

_STOPPING = "Not checked: the server is stopping."


class EngineProbe:
    """Ask the engine; an answer comes in time, whatever state it is in."""

    def __init__(
        self, scheduler: Scheduler, encoders: Encoders, *, default_model: str, timeout_s: float
    ) -> None:
        self._scheduler = scheduler
        self._encoders = encoders
        self._default_model = default_model
        self._timeout_s = timeout_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="probe")
        self._running: Future[None] | None = None
        self._lock = Lock()

    def check_engine(self) -> None:
        """Raise ModelError while no worker comes back."""
        if self._scheduler.is_stuck:
            raise ModelError(
                "Every worker of the engine is overdue. Each is given up after "
                "`worker_timeout_s` (EMBEDSERVE_WORKER_TIMEOUT_S) and replaced; the log names what "
                "they ran. If this stays, restart the server."
            )

    def check_model(self) -> None:
        """Raise an EmbedserveError unless the default model gives its canary's vector in time."""
        if self._scheduler.is_stuck:
            raise OverloadedError("Not checked: the engine does not come back.")
        try:
            self._check().result(self._timeout_s)
        except CancelledError:
            raise OverloadedError(_STOPPING) from None
        except TimeoutError:
            state = self._why_slow()
            raise OverloadedError(f"{state} {self._timeout_s:g} s are not enough.") from None

    def close(self) -> None:
        """Check nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _check(self) -> "Future[None]":
        """Begin a check, or join the one that others wait for."""
        with self._lock:
            running = self._running
            if running is None:
                running = self._running = self._begin()
        running.add_done_callback(self._forget)
        return running

    def _begin(self) -> "Future[None]":
        check, name = self._encoders.check_canary, self._default_model
        try:
            return self._thread.submit(check, name, timeout_s=self._timeout_s)
        except RuntimeError:  # closed
            raise OverloadedError(_STOPPING) from None

    def _forget(self, done: "Future[None]") -> None:
        # The traceback of one that failed keeps the model in memory.
        with self._lock:
            if self._running is done:
                self._running = None

    def _why_slow(self) -> str:
        if not self._encoders.is_loaded(self._default_model):
            return f"Model `{self._default_model}` is being loaded."
        tokens = self._scheduler.queued_tokens("small")
        return f"The canary text waits for the engine behind {tokens} tokens."
