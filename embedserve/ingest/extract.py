"""Turn files into text through jailed worker processes. Opens files; parses nothing itself.

The parent opens each file and hands over the descriptor, so that a worker needs no file system.
"""

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict

from embedserve import __version__
from embedserve.errors import ExtractionError
from embedserve.ingest.extract_errors import death, failure
from embedserve.ingest.kinds import may_stream, must_need_parsers
from embedserve.ingest.limits import ExtractLimits, ReadLimits
from embedserve.ingest.opening import opened, state_of
from embedserve.ingest.scratch import Scratch
from embedserve.ingest.spool import Spool
from embedserve.ingest.worker_process import (
    ABANDON_POLL_MS,
    AbandonedError,
    IsAbandoned,
    ReplyTooLongError,
    WorkerGoneError,
    WorkerProcess,
    never,
)
from embedserve.types import Extraction, MemberSpan, PageSpan

# Most files take milliseconds, and one more worker takes 15 MB and the third of a second: it is
# started only once a file has waited this long for those that are there.
PATIENCE_S = 0.5
# What a reply may hold besides its text: pages, title, warnings.
REPLY_EXTRA_BYTES = 16 * 1024 * 1024
POLL_S = ABANDON_POLL_MS / 1000
# A character is at most 4 bytes of UTF-8.
BYTES_PER_CHAR = 4
DIGEST_BYTES = 1 << 20
CHANGED = "It changed while it was read; the next run reads it again."
# Latin-1 doubles in UTF-8; a table of empty cells triples as Markdown.
MAX_GROWTH = 4
_WATCHED_BY_WORKER = [field.name for field in fields(ReadLimits)]


_STREAM_HINT = "Split it, or raise EMBEDSERVE_MAX_STREAM_BYTES."


class _SpoolTooLongError(Exception):
    """A long text is longer than its file can give rise to."""


class _Wait(TypedDict):
    timeout_s: float
    max_bytes: int
    is_abandoned: IsAbandoned


@dataclass(frozen=True)
class _Answer:
    reply: dict[str, Any]
    """The last one."""
    spool: Spool | None = None


class ExtractorPool:
    """Up to `workers` extraction processes, started when needed; safe to share by threads."""

    def __init__(
        self,
        workers: int,
        limits: ExtractLimits,
        scratch: Scratch | None = None,
        *,
        spool: Path | None = None,
    ) -> None:
        """Keep long texts in the folder `spool`, or where temporary files are."""
        self._limits = limits
        self._scratch = scratch or Scratch()
        self._spool_folder = spool
        self._workers = workers
        # Set by the first file that needs them, for good: text alone takes a fifth of the memory.
        self._has_parsers = False
        self._is_closed = False
        self._lock = threading.Lock()
        self._live: set[WorkerProcess] = set()
        self._has_changed = threading.Condition(self._lock)
        self._idle: list[WorkerProcess] = []
        self._lent = 0
        # A worker dies with the thread that started it, so one thread of ours starts them all.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="extractor-starter")

    def extract(self, path: Path, root: Path, *, is_abandoned: IsAbandoned = never) -> Extraction:
        """Read one file, which must lie in `root` (or be it). Blocks until a worker is free.

        Raises ExtractionError; only this file is concerned, whatever happened. Soon after
        `is_abandoned` tells so its worker is ended, and the code is `abandoned`.
        """
        with self._opened(path, root) as file:
            before = state_of(file)
            self._has_parsers |= must_need_parsers(path.name)
            answer = self._ask(path, file, is_abandoned)
            if answer.reply.get("needs_parsers"):  # whatever its name says
                self._has_parsers = True
                os.lseek(file, 0, os.SEEK_SET)  # the worker has moved it
                answer = self._ask(path, file, is_abandoned)
            changed = (CHANGED,) if state_of(file) != before else ()
        reply = answer.reply
        if "code" in reply:
            raise failure(reply["code"], path, reply)
        return Extraction(
            text=reply["text"],
            kind=reply["kind"],
            title=reply["title"],
            sha256=reply["sha256"],
            size_bytes=reply["size_bytes"],
            pages=tuple(PageSpan(*page) for page in reply["pages"]),
            members=tuple(MemberSpan(*member) for member in reply["members"]),
            warnings=(*changed, *reply["warnings"]),
            long_text=answer.spool,
        )

    def digest(self, path: Path, root: Path) -> str:
        """Return a file's sha256, opened as `extract` opens it, which parses nothing.

        Raises ExtractionError.
        """
        digest = hashlib.sha256()
        with self._opened(path, root) as file:
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
        with self._has_changed:
            # Each comes back when its call has noticed; then nothing uses a worker any more.
            self._has_changed.wait_for(lambda: self._lent == 0)
            idle, self._idle = self._idle, []
        for worker in idle:
            self._drop(worker)

    def _opened(self, path: Path, root: Path) -> AbstractContextManager[int]:
        if may_stream(path.name):
            return opened(path, root, self._limits.max_stream_bytes, hint=_STREAM_HINT)
        return opened(path, root, self._limits.max_file_bytes)

    def _ask(self, path: Path, file: int, is_abandoned: IsAbandoned) -> _Answer:
        limits = self._limits
        request = {
            "name": path.name,
            "limits": {name: getattr(limits, name) for name in _WATCHED_BY_WORKER},
            "timeout_s": limits.timeout_s,
        }
        wait: _Wait = {
            "timeout_s": limits.timeout_s,
            "max_bytes": limits.max_text_chars * BYTES_PER_CHAR + REPLY_EXTRA_BYTES,
            "is_abandoned": is_abandoned,
        }
        with self._borrowed(is_abandoned) as worker:
            try:
                reply = worker.ask(request, file, **wait)
                worker.plain += reply.get("is_plain", False)
                return self._spooled(worker, reply, wait) if "piece" in reply else _Answer(reply)
            except BaseException as error:
                worker.kill()  # whatever it still has to say is for nobody
                if (known := self._explained(error, path)) is None:
                    raise
                raise known from error

    def _spooled(self, worker: WorkerProcess, reply: dict[str, Any], wait: "_Wait") -> _Answer:
        """Keep the pieces of a long text until the last answer, which tells the rest."""
        spool = Spool(self._spool_folder)
        most = self._limits.max_stream_bytes * MAX_GROWTH
        try:
            while "piece" in reply:
                spool.add(reply["piece"])
                if spool.size_bytes > most:
                    raise _SpoolTooLongError(f"Its text has over {most} bytes.")
                reply = worker.next_reply(**wait)
        except BaseException:
            spool.close()
            raise
        if "code" in reply:
            spool.close()
            return _Answer(reply)
        return _Answer(reply, spool)

    def _explained(self, error: BaseException, path: Path) -> ExtractionError | None:
        """Return what an error means for the file, if anything."""
        match error:
            case AbandonedError():
                return failure("abandoned", path)
            case TimeoutError():
                return failure("timed_out", path)
            case ReplyTooLongError():
                return failure("text_too_large", path)
            case _SpoolTooLongError():
                return failure("too_large", path, {"message": f"{error}", "hint": _STREAM_HINT})
            case WorkerGoneError():
                return failure("shutting_down", path) if self._is_closed else death(error, path)
            case OSError():
                return failure("no_room", path, {"message": f"Its text cannot be kept: {error}."})
        return None

    @contextmanager
    def _borrowed(self, is_abandoned: IsAbandoned = never) -> Iterator[WorkerProcess]:
        worker = self._free_worker(is_abandoned)
        try:
            if worker is None or not worker.is_alive or worker.has_parsers < self._has_parsers:
                if worker is not None:
                    self._drop(worker)
                worker = None
                worker = self._start()
            yield worker
        finally:
            if worker is not None and (
                not worker.is_alive or worker.is_worn_out or self._is_closed
            ):
                self._drop(worker)
                worker = None
            with self._has_changed:
                self._lent -= 1
                if worker is not None:
                    self._idle.append(worker)
                self._has_changed.notify_all()

    def _free_worker(self, is_abandoned: IsAbandoned) -> WorkerProcess | None:
        """Take one that is idle; None: one more may be started."""
        is_patient_until_s = time.monotonic() + PATIENCE_S
        while True:
            with self._has_changed:
                self._has_changed.wait_for(lambda: self._idle or not self._lent, POLL_S)
                is_patient = time.monotonic() < is_patient_until_s
                if self._idle or not self._lent or (self._lent < self._workers and not is_patient):
                    self._lent += 1
                    return self._idle.pop() if self._idle else None
            if is_abandoned():
                raise failure("abandoned", Path("-"))

    def _start(self) -> WorkerProcess:
        try:
            limits = self._limits
            given = (limits.memory_bytes, limits.tessdata, self._scratch)
            started = self._starter.submit(WorkerProcess, *given, has_parsers=self._has_parsers)
            worker = started.result()
        except RuntimeError as error:
            raise failure("shutting_down", Path("-")) from error
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
