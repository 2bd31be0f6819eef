"""One ingestion job from survey to last commit. Everything it does, it can do again.

Files pass through `FileIngest` a few at a time.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from embedserve.errors import ExtractionError
from embedserve.services.file_ingest import FileIngest, Tools
from embedserve.services.file_problems import outcome_of
from embedserve.services.found import Found
from embedserve.services.ingest_plan import Survey, Target, renamed, sum_of_bytes, survey
from embedserve.services.token_budget import TokenBudget
from embedserve.types import FileResult, Index, Job, KnownFile, Plan

BYTES_AT_ONCE = 16 * 1024 * 1024
"""Of the files that one job has in work; text and chunks take some times as much memory."""


@dataclass(frozen=True)
class Task:
    """What is done for one file."""

    size_bytes: int
    """Of the file, 0: not known yet."""
    work: Callable[[], None]


class IngestRun:
    """Bring one index in step with folders, or with single files."""

    def __init__(self, tools: Tools, job: Job, index: Index, *, budget: TokenBudget) -> None:
        self._tools = tools
        self._catalog = tools.catalog
        self._interruption = tools.interruption
        self._job = job
        self._index = index
        self.files = FileIngest(tools, job, index, budget=budget)

    def run(self, targets: Sequence[Target], *, only: Collection[str] = ()) -> None:
        """Ingest every target, or of them `only` some paths; raise JobInterruptedError."""
        seen = survey(
            self._catalog,
            self._index.id,
            targets,
            max_files=self._tools.max_files,
            only=only,
            interruption=self._interruption,
        )
        results = [
            FileResult(problem.path, outcome_of(problem), problem=problem)
            for problem in seen.problems
        ]
        self._catalog.jobs.record_files(self._job.id, results)
        work = seen.plan
        sizes = map(len, (work.add, work.update, work.delete, work.unchanged, results))
        # A resumed job has deleted some already; they are no longer in the plan.
        total = sum(sizes) + self._job.counts.get("deleted", 0)
        self._catalog.jobs.set_totals(
            self._job.id, files=total, bytes_to_read=sum_of_bytes(seen.to_read)
        )
        self._tools.progress.begin_reading(self._job.bytes_done)
        self._carry_out(seen)

    def ingest_kept(self, items: Sequence[Found]) -> None:
        """Ingest files that are kept for the index, new ones and new versions."""
        known = self._catalog.documents.known_at(self._index.id, [item.file.path for item in items])
        self.carry_out_each([self._task(item, known.get(item.file.path)) for item in items])

    def carry_out_each(self, tasks: Sequence[Task]) -> None:
        """Do one task for each of so many files, beside what the job has done already."""
        size = sum(task.size_bytes for task in tasks)
        self._catalog.jobs.set_left(self._job.id, files=len(tasks), bytes_to_read=size)
        if self._tools.progress.stage == "scanning":
            self._tools.progress.begin_reading(self._job.bytes_done)
        self._in_parallel(tasks)

    def _task(self, found: Found, known: KnownFile | None) -> Task:
        return Task(found.file.size_bytes, partial(self.files.ingest, found, known))

    def _carry_out(self, seen: Survey) -> None:
        self.files.record_unchanged(seen.plan.unchanged)
        work = self._move_renamed(seen)
        for path in work.delete:
            self._interruption.check()
            self._catalog.documents.delete(self._index, path, job_id=self._job.id)
            self._tools.wake_index()
        self._in_parallel(
            self._task(seen.found[file.path], seen.known.get(file.path))
            for file in (*work.add, *work.update)
        )

    def _move_renamed(self, seen: Survey) -> Plan:
        """Give documents of renamed files their new paths; return what is left of the plan."""
        work = seen.plan
        if not work.add or not work.delete:
            return work
        titles = self._catalog.documents.titles(self._index, work.delete)
        moved: dict[str, str] = {}
        for file, candidates in renamed(work, seen.known, titles):
            self._interruption.check()
            left = [one for one in candidates if one.path not in moved.values()]
            former = self._former(seen.found[file.path], left)
            if former:
                self._catalog.documents.move(self._index, former, file, job_id=self._job.id)
                moved[file.path] = former.path
        gone = set(moved.values())
        return replace(
            work,
            add=tuple(file for file in work.add if file.path not in moved),
            delete=tuple(path for path in work.delete if path not in gone),
        )

    def _former(self, found: Found, candidates: Sequence[KnownFile]) -> KnownFile | None:
        """Return the one that has the file's content; None as well where it cannot be read."""
        if not candidates:
            return None
        try:
            digest = self._tools.extractors.digest(Path(found.file.path), found.root)
        except ExtractionError:
            return None  # it is read again as a new file, which tells why that fails
        return next((one for one in candidates if one.sha256 == digest), None)

    def _in_parallel(self, tasks: Iterable[Task]) -> None:
        """Do a few tasks at a time, the first error ends it.

        No more bytes of them are in memory than BYTES_AT_ONCE, unless one file alone has more.
        """
        running: dict[Future[None], int] = {}
        limit = self._tools.files_at_once
        with ThreadPoolExecutor(limit, thread_name_prefix=f"ingest-{self._index.name}") as pool:
            for task in tasks:
                self._interruption.check()
                while running and (
                    len(running) >= limit or sum(running.values()) + task.size_bytes > BYTES_AT_ONCE
                ):
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        del running[future]
                        future.result()
                running[pool.submit(task.work)] = task.size_bytes
            for future in running:
                future.result()
