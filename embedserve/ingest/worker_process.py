"""The parent's end of one extraction worker: start it, ask it, end it. Knows no document.

See `extract_worker` for the other end and for the form of the messages.
"""

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from embedserve.ingest.scratch import Scratch

# Parsers leak; a fresh process now and then costs a third of a second. Text that is only decoded
# leaves nothing behind.
FILES_PER_WORKER = 200
TEXTS_PER_WORKER = 20_000
# Imports of a cold machine; a worker that is up answers in far less.
START_TIMEOUT_S = 60.0
ABANDON_POLL_MS = 200
"""Whoever does not want an answer any more is let go within that time."""
STDERR_LINES, STDERR_LINE_CHARS = 20, 500
# The only variables a worker gets: no secret of the server's can leak from it.
PASSED_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "SYSTEMROOT")

IsAbandoned = Callable[[], bool]


def never() -> bool:
    """Wait for an answer whatever happens."""
    return False


class WorkerGoneError(Exception):
    """The worker ended without an answer; `signal_number` is 0 when it exited by itself."""

    def __init__(self, signal_number: int, last_words: str) -> None:
        super().__init__(last_words)
        self.signal_number = signal_number
        self.last_words = last_words


class AbandonedError(Exception):
    """Whoever asked does not want the answer any more."""


class ReplyTooLongError(Exception):
    """The worker announced a reply over the limit."""


class WorkerProcess:
    """One running worker; used by one thread at a time.

    Must be created by a thread that lives as long as the worker may: the kernel kills the worker
    when that very thread ends, which is how it is sure to die with this process.
    """

    def __init__(
        self, memory_bytes: int, readable: str, scratch: Scratch, *, has_parsers: bool
    ) -> None:
        self.has_parsers = has_parsers
        """Without them it takes a fifth of the memory, and reads text alone."""
        self.served = 0
        """Files that it was asked about."""
        self.plain = 0
        """Of these, those that were text as they stood, so that no parser saw them."""
        self._last_words: deque[str] = deque(maxlen=STDERR_LINES)
        self.channel, theirs = socket.socketpair()
        # The library unpacks native code under a fixed name into the temporary folder: give it
        # one that nobody else can write to, for as long as it takes to load.
        with theirs, scratch.folder() as folder:
            command = [str(theirs.fileno()), str(os.getpid()), str(memory_bytes), readable]
            command.append("parsers" if has_parsers else "text")
            self.process = _start(command, theirs.fileno(), readable, folder)
            theirs.close()  # so that its end is seen as the end
            # Somebody must empty the pipe, or a talkative parser would stop in the middle.
            self._listener = threading.Thread(target=self._listen, daemon=True)
            self._listener.start()
            try:
                hello = self._read_reply(time.monotonic() + START_TIMEOUT_S, max_bytes=4096)
            except BaseException:
                self.kill()
                raise
        self.protections: tuple[str, ...] = tuple(hello["jail"])

    @property
    def is_alive(self) -> bool:
        """Tell whether the process still runs."""
        return self.process.poll() is None

    @property
    def is_worn_out(self) -> bool:
        """Tell whether it is to be replaced by a fresh one."""
        parsed = self.served - self.plain
        return parsed >= FILES_PER_WORKER or self.served >= TEXTS_PER_WORKER

    def ask(
        self,
        request: dict[str, Any],
        file: int,
        *,
        timeout_s: float,
        max_bytes: int,
        is_abandoned: IsAbandoned = never,
    ) -> dict[str, Any]:
        """Send a request with an open descriptor and wait for the answer, or the first of several.

        `is_abandoned` is asked a few times a second. Raises TimeoutError, AbandonedError,
        WorkerGoneError or ReplyTooLongError; kill the worker then.
        """
        body = json.dumps(request).encode()
        self.served += 1
        try:
            socket.send_fds(self.channel, [struct.pack(">I", len(body)), body], [file])
        except OSError as error:
            raise self._gone() from error
        return self.next_reply(timeout_s=timeout_s, max_bytes=max_bytes, is_abandoned=is_abandoned)

    def next_reply(
        self, *, timeout_s: float, max_bytes: int, is_abandoned: IsAbandoned = never
    ) -> dict[str, Any]:
        """Wait for the next answer to a request of which the last said that there is one."""
        if is_abandoned():  # a worker that always has more to say is never waited for
            raise AbandonedError
        deadline = time.monotonic() + timeout_s
        return self._read_reply(deadline, max_bytes=max_bytes, is_abandoned=is_abandoned)

    def kill(self) -> None:
        """End the process at once and release what it held."""
        self.process.kill()
        self.process.wait()
        self._listener.join()
        self.channel.close()

    def _read_reply(
        self, deadline: float, *, max_bytes: int, is_abandoned: IsAbandoned = never
    ) -> dict[str, Any]:
        length = int.from_bytes(self._read(4, deadline, is_abandoned), "big")
        if length > max_bytes:
            raise ReplyTooLongError
        reply: dict[str, Any] = json.loads(self._read(length, deadline, is_abandoned))
        return reply

    def _read(self, length: int, deadline: float, is_abandoned: IsAbandoned) -> bytearray:
        content = bytearray(length)
        view = memoryview(content)
        while len(view):
            left_ms = int((deadline - time.monotonic()) * 1000)
            if left_ms <= 0:
                raise TimeoutError
            poll = select.poll()  # unlike select(), without a limit on descriptor numbers
            poll.register(self.channel, select.POLLIN)
            if not poll.poll(min(left_ms, ABANDON_POLL_MS)):
                if is_abandoned():
                    raise AbandonedError
                continue
            try:
                received = self.channel.recv_into(view)
            except ConnectionError:
                received = 0
            if not received:
                raise self._gone()
            view = view[received:]
        return content

    def _gone(self) -> WorkerGoneError:
        self.process.kill()  # in case it closed the socket and lives on
        code = self.process.wait()
        self._listener.join()
        return WorkerGoneError(max(0, -code), "\n".join(self._last_words))

    def _listen(self) -> None:
        stderr = self.process.stderr
        if stderr is None:
            return
        with stderr:
            while line := stderr.readline(STDERR_LINE_CHARS):
                self._last_words.append(line.decode("utf-8", "replace").rstrip())


def _start(arguments: list[str], fd: int, readable: str, folder: str) -> subprocess.Popen[bytes]:
    passed = {"TESSDATA_PREFIX": readable} if readable else {}
    passed |= {name: os.environ[name] for name in PASSED_VARIABLES if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-m", "embedserve.ingest.extract_worker", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=[fd],
        # Each arena of malloc reserves 64 MiB of address space, which is what the jail limits.
        env={**passed, "TMPDIR": folder, "HOME": folder, "MALLOC_ARENA_MAX": "2"},
        process_group=0,  # an interrupt from the terminal is for the server alone
    )


def name_of_signal(number: int) -> str:
    """Return a signal's name, such as `SIGSEGV`."""
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
