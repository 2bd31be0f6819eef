"""A Chroma server as our child: started, watched, restarted, and never left behind.

Its folder is derived from the catalog, so when it will not come up from it, the folder is moved
aside and it starts empty. The caller must own the home folder: a server of the same folder that
an earlier run left behind is killed.
"""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event, Lock, Thread
from time import monotonic
from typing import Literal, Protocol

from embedserve.errors import VectorStoreError
from embedserve.store.chroma_folder import has_room, place_of, set_aside
from embedserve.store.loopback import HOST, answers, free_port
from embedserve.store.pid_file import end_left_over, write_pid_file

READY_POLL_S = 0.05
HEARTBEAT_EVERY_S = 0.5
STABLE_S = 60.0  # a child that lived that long did not die of its folder
FAILURES_BEFORE_EMPTY = 3
FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 30.0
TERMINATE_S = 10.0
RENEW_EVERY_S = 60.0  # what that does not help is no lock of the child's own
MAX_LOG_BYTES = 10 * 1024 * 1024
FRUGAL = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
}
"""For glibc: what Chroma's threads have freed goes back. 259 MiB become 208 at 44,000 rows."""

ChromaStatus = Literal["starting", "up", "down"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChromaState:
    """Whether the child answers; `reason` says why when it does not."""

    status: ChromaStatus
    reason: str = ""


class RestartListener(Protocol):
    """Told, on the owner thread, each time the child answers again. It must return soon."""

    def __call__(self, *, was_emptied: bool) -> None:
        """Check the indexes; with `was_emptied` every chunk has to be upserted again."""
        ...


class ChromaProcess:
    """Keep one Chroma server running on a loopback port.

    The thread that starts the child also watches it until `stop`: the kernel binds the child's
    life to that thread, so a short-lived one would take the child with it. `on_lost` is called
    on it when the child is gone, before another is started.
    """

    def __init__(
        self,
        folder: Path,
        log_path: Path,
        *,
        timeout_s: float,
        on_restart: RestartListener | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self._folder = folder.absolute()
        self._log_path = log_path
        self._pid_path = self._folder.with_name(self._folder.name + ".pid")
        self._timeout_s = timeout_s
        self._on_restart = on_restart
        self._on_lost = on_lost
        self._lock = Lock()
        self._state = ChromaState("down", "not started")
        self._pid: int | None = None
        self._port = 0
        self._has_settled = Event()  # the first start has succeeded or failed
        self._wake = Event()
        self._is_stopping = False
        self._is_renewal_wanted = False
        self._renewed = -RENEW_EVERY_S
        self._early_ends = 0  # children in a row that did not live long
        self._was_emptied = False  # and no child has come up since
        self._has_been_up = False
        self._has_ended_in_order = False
        self._thread: Thread | None = None

    @property
    def url(self) -> str:
        """Address of the child; it may change with a restart, so ask each time."""
        with self._lock:
            return f"http://{HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        with self._lock:
            return self._pid

    @property
    def state(self) -> ChromaState:
        """How the child is."""
        with self._lock:
            return self._state

    def start(self) -> ChromaState:
        """Start the child and return once it answers, or once the first attempt has failed.

        It is tried again in the background until `stop`.
        """
        if self._thread is not None:
            raise VectorStoreError("This is a bug: the Chroma process was started twice")
        self._thread = Thread(target=self._supervise, name="chroma-owner", daemon=True)
        self._thread.start()
        self._has_settled.wait(self._timeout_s + TERMINATE_S)
        return self.state

    def stop(self) -> bool:
        """End the child, in order if it can, and wait until it is gone; tell whether it could."""
        self._is_stopping = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        return self._has_ended_in_order

    def renew(self) -> None:
        """Start the child anew: it answers, but stores nothing although there is room.

        After a full disk, for one, it keeps a lock on its own database for good (chromadb 1.5.9).
        """
        if monotonic() - self._renewed >= RENEW_EVERY_S and has_room(self._folder):
            self._renewed = monotonic()
            self._is_renewal_wanted = True

    def _supervise(self) -> None:
        failures = 0
        while not self._is_stopping:
            started = monotonic()
            try:
                self._keep_one_child()
            except Exception:  # without this thread nobody would start Chroma again
                logger.exception("the supervision of Chroma failed; it goes on")
                self._set_state("down", "its supervision failed; see the server's log")
            self._has_settled.set()
            failures = failures + 1 if monotonic() - started < STABLE_S else 0
            # The exponent has a bound because a float has one.
            self._pause(min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2 ** min(failures, 16)))

    def _keep_one_child(self) -> None:
        started = monotonic()
        try:
            reason = self._run_child()
            self._early_ends = self._early_ends + 1 if monotonic() - started < STABLE_S else 1
        except OSError as error:  # no fault of the folder: no memory, no space, no port
            reason = f"could not be started: {error}"
        self._set_state("down", reason)
        self._has_settled.set()
        if self._is_stopping:
            return
        # Before a new child can answer: it may hold less than the one that is gone.
        if self._on_lost is not None:
            self._tell(self._on_lost)
        logger.warning("Chroma %s; starting it again (log: %s)", reason, self._log_path)
        if self._early_ends >= FAILURES_BEFORE_EMPTY:
            self._set_aside()

    def _run_child(self) -> str:
        """Run one child from its start to its end and return why it ended."""
        self._set_state("starting", "waiting for the first heartbeat")
        if (pid := end_left_over(self._pid_path, str(self._folder))) is not None:
            logger.warning("killed Chroma process %d, left over from an earlier run", pid)
        process = self._spawn()
        try:
            write_pid_file(self._pid_path, process.pid)
            failure = self._wait_until_ready(process)
            if failure is not None:
                return failure
            self._set_state("up")
            self._has_settled.set()
            self._tell_restart()
            return self._watch(process)
        finally:
            self._end(process)

    def _spawn(self) -> subprocess.Popen[bytes]:
        port = free_port(self._port)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        launcher = Path(__file__).with_name("chroma_launcher.py")
        # -P: the launcher's own folder must not shadow modules that Chroma imports.
        command = [sys.executable, "-P", str(launcher), str(os.getpid()), str(self._folder)]
        with self._log_path.open(_log_mode(self._log_path)) as log:
            process = subprocess.Popen(
                [*command, str(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**FRUGAL, **os.environ, "ANONYMIZED_TELEMETRY": "False"},
                start_new_session=True,  # Ctrl-C is for the parent, which then ends the child
            )
        with self._lock:
            self._pid, self._port = process.pid, port
        return process

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> str | None:
        """Return None once the child answers, else what went wrong."""
        deadline = monotonic() + self._timeout_s
        while monotonic() < deadline:
            if answers(self._port, READY_POLL_S * 10):
                return None
            if process.poll() is not None:
                return _end_of(process)
            if self._pause(READY_POLL_S):
                return "was asked to end"
        return f"did not answer within {self._timeout_s:.0f} s of its start"

    def _watch(self, process: subprocess.Popen[bytes]) -> str:
        """Return when the child has ended, stopped answering, or is to end."""
        answered, place = monotonic(), place_of(self._folder)
        self._is_renewal_wanted = False
        while not self._pause(HEARTBEAT_EVERY_S):
            if process.poll() is not None:
                return _end_of(process)
            if self._is_renewal_wanted:
                return "stored nothing any more"
            former, place = place, place_of(self._folder)
            if former not in (None, place):  # it would go on with what it has open, and lose it
                return "lost its folder, which was deleted or replaced"
            # A busy child may be slow to answer; silence for the whole timeout is a hang.
            if answers(self._port, self._timeout_s):
                answered = monotonic()
            elif monotonic() - answered > self._timeout_s:
                process.kill()  # it would not hear SIGTERM either
                return f"gave no answer for {self._timeout_s:.0f} s"
        return "was asked to end"

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(TERMINATE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        # A supervisor may have asked the whole group of processes to end.
        self._has_ended_in_order = process.returncode in (0, -signal.SIGTERM)
        with self._lock:
            self._pid = None
        with suppress(OSError):  # the process it names has ended, so it names none
            self._pid_path.unlink(missing_ok=True)

    def _tell_restart(self) -> None:
        was_emptied, is_restart = self._was_emptied, self._has_been_up
        self._was_emptied, self._has_been_up = False, True
        if self._on_restart is not None and (is_restart or was_emptied):
            self._tell(partial(self._on_restart, was_emptied=was_emptied))

    def _tell(self, listener: Callable[[], None]) -> None:
        try:
            listener()
        except Exception:  # the listener's failure must not end the child's supervision
            logger.exception("a listener failed after Chroma ended or was started again")

    def _set_aside(self) -> None:
        """Move the folder away, unless it is an empty one that never came up."""
        self._early_ends = 0
        if not self._was_emptied and has_room(self._folder):
            self._was_emptied = set_aside(self._folder)

    def _pause(self, seconds: float) -> bool:
        """Wait unless the child is to end; tell whether it is."""
        self._wake.wait(seconds)
        return self._is_stopping

    def _set_state(self, status: ChromaStatus, reason: str = "") -> None:
        with self._lock:
            self._state = ChromaState(status, reason)


def _log_mode(path: Path) -> Literal["ab", "wb"]:
    is_large = path.exists() and path.stat().st_size > MAX_LOG_BYTES
    return "wb" if is_large else "ab"


def _end_of(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
