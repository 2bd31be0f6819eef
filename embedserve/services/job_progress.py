"""How far a running job is: what the catalog knows of it, and what is under way now."""

import time
from dataclasses import dataclass, field
from threading import Lock
from typing import Literal

from embedserve.types import Job

BASIS_S = 2.0
"""What is left is told once so much time was spent on reading, and some of it is done."""

Stage = Literal["scanning", "reading", "indexing"]


@dataclass(frozen=True)
class JobReport:
    """A job as it is now."""

    job: Job
    stage: Stage | None = None
    """Of a running job: files are looked for, read and embedded, or the vector index catches up."""
    bytes_done: int = 0
    """Parts of files that are under way included."""
    seconds_left: float | None = None
    """Of reading, by the rate so far; None where there is no basis to tell."""
    problem: str | None = None
    """What holds the job up; it goes on by itself when that is over."""


@dataclass
class JobProgress:
    """What one running job is at; told by its threads, asked by others."""

    stage: Stage = "scanning"
    _started_s: float = 0.0
    _done_before: int = 0
    _under_way: dict[str, int] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def begin_reading(self, bytes_done: int) -> None:
        """Start the clock; `bytes_done`: what was done in a former life, which took no time now."""
        with self._lock:
            self.stage = "reading"
            self._started_s, self._done_before = time.monotonic(), bytes_done

    def begin_indexing(self) -> None:
        """Note that all is committed."""
        self.stage = "indexing"

    def advance(self, path: str, bytes_done: int) -> None:
        """Note how much of a file is embedded that is not committed yet."""
        with self._lock:
            self._under_way[path] = bytes_done

    def end(self, path: str) -> None:
        """Note that a file is committed, or given up."""
        with self._lock:
            self._under_way.pop(path, None)

    def report(self, job: Job) -> JobReport:
        """Return the job with what is under way."""
        with self._lock:
            stage, bytes_done = self.stage, job.bytes_done + sum(self._under_way.values())
            spent_s = time.monotonic() - self._started_s
        total = job.bytes_total
        if total is None or stage == "scanning":
            return JobReport(job, stage, bytes_done)
        # A file that grew since the scan counts as it is now.
        done, left = bytes_done - self._done_before, max(0, total - bytes_done)
        if stage == "indexing" or not left:
            return JobReport(job, stage, bytes_done, 0.0)
        seconds_left = left * spent_s / done if done > 0 and spent_s >= BASIS_S else None
        return JobReport(job, stage, bytes_done, seconds_left)
