"""Turn files into text through jailed worker processes. Opens files; parses nothing itself.

The parent opens each file and hands over the descriptor, so that a worker needs no file system.
"""

import hashlib
import json
import os
import queue
import signal
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from embedserve import __version__
from embedserve.errors import ExtractionError
from embedserve.ingest.limits import ExtractLimits, ReadLimits
from embedserve.ingest.scratch import Scratch
from embedserve.ingest.worker_process import (
    ABANDON_POLL_MS,
    AbandonedError,
    IsAbandoned,
    ReplyTooLongError,
    WorkerGoneError,
    WorkerProcess,
    name_of_signal,
    never,
)
from embedserve.types import Extraction, MemberSpan, PageSpan

# Parsers leak; a fresh process now and then costs a third of a second.
FILES_PER_WORKER = 200
# What a reply may hold besides its text: pages, title, warnings.
REPLY_EXTRA_BYTES = 16 * 1024 * 1024
# A character is at most 4 bytes of UTF-8.
BYTES_PER_CHAR = 4
DIGEST_BYTES = 1 << 20
CHANGED = "It changed while it was read; the next run reads it again."
_WATCHED_BY_WORKER = [field.name for field in fields(ReadLimits)]


class ExtractorPool:
    """Up to `workers` extraction processes, started when first needed; safe to share by threads."""

    def __init__(self, workers: int, limits: ExtractLimits, scratch: Scratch | None = None) -> None:
        self._limits = limits
        self._scratch = scratch or Scratch()
        self._workers = workers
        self._is_closed = False
        self._lock = threading.Lock()
        self._live: set[WorkerProcess] = set()
        # Last in, first out: an idle worker is used before another is started.
        self._slots: queue.LifoQueue[WorkerProcess | None] = queue.LifoQueue()
        for _ in range(workers):
            self._slots.put(None)
        # A worker dies with the thread that started it, so one thread of ours starts them all.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="extractor-starter")

    def extract(self, path: Path, root: Path, *, is_abandoned: IsAbandoned = never) -> Extraction:
        """Read one file, which must lie in `root` (or be it). Blocks until a worker is free.

        Raises ExtractionError; only this file is concerned, whatever happened. Soon after
        `is_abandoned` tells so its worker is ended, and the code is `abandoned`.
        """
        with _opened(path, root, self._limits.max_file_bytes) as file:
            before = _version(file)
            reply = self._ask(path, file, is_abandoned)
            changed = (CHANGED,) if _version(file) != before else ()
        if "code" in reply:
            raise _failure(reply["code"], path, reply)
        pages = tuple(PageSpan(*page) for page in reply["pages"])
        return Extraction(
            text=reply["text"],
            kind=reply["kind"],
            title=reply["title"],
            sha256=reply["sha256"],
            size_bytes=reply["size_bytes"],
            pages=pages,
            members=tuple(MemberSpan(*member) for member in reply["members"]),
            warnings=(*changed, *reply["warnings"]),
        )

    def digest(self, path: Path, root: Path) -> str:
        """Return a file's sha256, opened as `extract` opens it, which parses nothing.

        Raises ExtractionError.
        """
        digest = hashlib.sha256()
        with _opened(path, root, self._limits.max_file_bytes) as file:
            while part := os.read(file, DIGEST_BYTES):
                digest.update(part)
        return digest.hexdigest()

    @property
    def identity(self) -> str:
        """What decides which files can be read: this release, its library, and the limits."""
        versions = {"embedserve": __version__, "kreuzberg": version("kreuzberg")}
        return json.dumps(versions | asdict(self._limits), sort_keys=True)

    def protections(self) -> tuple[str, ...]:
        """Name the parts of the jail that hold on this machine; see `jail`."""
        with self._borrowed() as worker:
            return worker.protections

    def close(self) -> None:
        """End all workers at once; running and later calls of `extract` fail."""
        with self._lock:
            self._is_closed = True
            live = list(self._live)
        for worker in live:
            worker.process.kill()
        self._starter.shutdown()
        # Each slot comes back when its call has noticed; then nothing uses a worker any more.
        for worker_or_none in [self._slots.get() for _ in range(self._workers)]:
            if worker_or_none is not None:
                self._drop(worker_or_none)
            self._slots.put(None)  # a later call finds it, and is told that the pool is closed

    def _ask(self, path: Path, file: int, is_abandoned: IsAbandoned) -> dict[str, Any]:
        limits = self._limits
        request = {
            "name": path.name,
            "limits": {name: getattr(limits, name) for name in _WATCHED_BY_WORKER},
            "timeout_s": limits.timeout_s,
        }
        most = limits.max_text_chars * BYTES_PER_CHAR + REPLY_EXTRA_BYTES
        with self._borrowed(is_abandoned) as worker:
            try:
                return worker.ask(
                    request,
                    file,
                    timeout_s=limits.timeout_s,
                    max_bytes=most,
                    is_abandoned=is_abandoned,
                )
            except AbandonedError as error:
                worker.kill()
                raise _failure("abandoned", path) from error
            except TimeoutError as error:
                worker.kill()
                raise _failure("timed_out", path) from error
            except ReplyTooLongError as error:
                worker.kill()
                raise _failure("text_too_large", path) from error
            except WorkerGoneError as error:
                if self._is_closed:
                    raise _failure("shutting_down", path) from error
                raise _death(error, path) from error

    @contextmanager
    def _borrowed(self, is_abandoned: IsAbandoned = never) -> Iterator[WorkerProcess]:
        worker = self._free_slot(is_abandoned)
        try:
            if worker is None or not worker.is_alive:
                if worker is not None:
                    self._drop(worker)
                worker = None
                worker = self._start()
            yield worker
        finally:
            if worker is not None and (
                not worker.is_alive or worker.served >= FILES_PER_WORKER or self._is_closed
            ):
                self._drop(worker)
                worker = None
            self._slots.put(worker)

    def _free_slot(self, is_abandoned: IsAbandoned) -> WorkerProcess | None:
        while True:
            try:
                return self._slots.get(timeout=ABANDON_POLL_MS / 1000)
            except queue.Empty:
                if is_abandoned():
                    raise _failure("abandoned", Path("-")) from None

    def _start(self) -> WorkerProcess:
        try:
            limits = self._limits
            started = self._starter.submit(
                WorkerProcess, limits.memory_bytes, limits.tessdata, self._scratch
            )
            worker = started.result()
        except RuntimeError as error:
            raise _failure("shutting_down", Path("-")) from error
        except (OSError, WorkerGoneError) as error:
            raise ExtractionError(
                "extractor_failed",
                f"The extraction process does not start: {str(error)[-300:]}",
                stage="extract",
                hint="EMBEDSERVE_EXTRACT_MEMORY_BYTES may be too small.",
                is_retryable=True,
            ) from error
        with self._lock:
            self._live.add(worker)
            if self._is_closed:
                worker.process.kill()
        return worker

    def _drop(self, worker: WorkerProcess) -> None:
        worker.kill()
        with self._lock:
            self._live.discard(worker)


@contextmanager
def _opened(path: Path, root: Path, max_bytes: int) -> Iterator[int]:
    """Open a regular file inside `root`, whatever its name or its folders turn into meanwhile."""
    try:
        real, real_root = path.resolve(strict=True), root.resolve(strict=True)
        if not real.is_relative_to(real_root):
            raise _failure("outside_root", path)
        # Without O_NONBLOCK a fifo would block the open itself.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        file = os.open(real, flags)
    except FileNotFoundError as error:
        raise _failure("not_found", path) from error
    except (OSError, RuntimeError) as error:
        raise _failure("permission_denied", path, {"message": f"{error}"}) from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise _failure("not_a_file", path)
        if not _is_really_in(file, real_root):
            raise _failure("outside_root", path)
        if status.st_size == 0:
            raise _failure("empty_file", path)
        if status.st_size > max_bytes:
            raise _failure("too_large", path, {"message": f"It has {status.st_size} bytes."})
        yield file
    finally:
        os.close(file)


def _version(file: int) -> tuple[int, int]:
    status = os.fstat(file)
    return status.st_size, status.st_mtime_ns


def _is_really_in(file: int, root: Path) -> bool:
    """Ask the kernel where the open file lies: a folder may have become a link since `resolve`."""
    try:
        return Path(os.readlink(f"/proc/self/fd/{file}")).is_relative_to(root)
    except OSError:
        return True  # no /proc: the check before opening has to do


# code -> (what happened, what to do). The rest comes from the worker with words of its own.
_WORDS: dict[str, tuple[str, str]] = {
    "not_found": ("It is gone.", ""),
    "not_a_file": ("It is a folder, device, socket or fifo.", ""),
    "permission_denied": ("", "Give the user that runs embedserve the right to read it."),
    "outside_root": ("It lies outside of the folder being ingested.", "Ingest it by itself."),
    "empty_file": ("It has 0 bytes.", "Fill it, or exclude it by a glob."),
    "too_large": ("", "Split it, or raise EMBEDSERVE_MAX_FILE_BYTES."),
    "text_too_large": ("Its text is too long.", "Split it, or raise EMBEDSERVE_MAX_TEXT_CHARS."),
    "timed_out": ("Reading it took too long.", "Raise EMBEDSERVE_EXTRACT_TIMEOUT_S."),
    "out_of_memory": (
        "Reading it took more memory than allowed.",
        "Split it, or raise EMBEDSERVE_EXTRACT_MEMORY_BYTES.",
    ),
    "abandoned": ("Nobody waits for it any more.", "Run the job again."),
    "shutting_down": ("The server is stopping.", "Run the job again."),
}
_AT_OPENING = {
    *("not_found", "not_a_file", "permission_denied", "outside_root", "empty_file", "too_large")
}
_RETRYABLE = {"not_found", "permission_denied", "timed_out", "shutting_down", "abandoned"}


def _failure(code: str, path: Path, reply: dict[str, Any] | None = None) -> ExtractionError:
    reply = reply or {}
    words, hint = _WORDS.get(code, ("", ""))
    is_opening = "code" not in reply and code in _AT_OPENING
    return ExtractionError(
        code,
        f"Cannot read `{path}`: {reply.get('message') or words}",
        stage="open" if is_opening else "extract",
        hint=reply.get("hint") or hint,
        is_retryable=code in _RETRYABLE,
    )


def _death(error: WorkerGoneError, path: Path) -> ExtractionError:
    if error.signal_number == signal.SIGXCPU:
        return _failure("timed_out", path)
    if "memory allocation of" in error.last_words or "MemoryError" in error.last_words:
        return _failure("out_of_memory", path)
    cause = name_of_signal(error.signal_number) if error.signal_number else "an exit"
    last = error.last_words.rpartition("\n")[2]
    return ExtractionError(
        "extractor_died",
        f"Cannot read `{path}`: its extraction process ended by {cause}. {last}".rstrip(),
        stage="extract",
        hint="The file crashes the parser; convert it to another format.",
        # SIGKILL comes from outside: the system was short of memory, or somebody meant it.
        is_retryable=error.signal_number in (signal.SIGKILL, signal.SIGTERM),
    )
