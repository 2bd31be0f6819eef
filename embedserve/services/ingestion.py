"""Ingestion jobs: accepted, run in turn by a few threads, resumed after any stop."""

import logging
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from threading import Condition, Thread

from embedserve.errors import (
    CatalogUnavailableError,
    ConflictError,
    EmbedserveError,
    IndexNotFoundError,
    InvalidRequestError,
    JobNotFoundError,
)
from embedserve.services.definitions import definition_of
from embedserve.services.encoders import Encoders
from embedserve.services.held_up import TAKING_UP, HeldUp
from embedserve.services.indexes import IndexService
from embedserve.services.ingest_plan import Survey
from embedserve.services.interruption import Interruption, JobInterruptedError
from embedserve.services.job_progress import JobProgress, JobReport
from embedserve.services.job_run import IngestTools, JobRun
from embedserve.services.viewing import may_see_jobs
from embedserve.store.catalog import Catalog
from embedserve.types import FileResult, Index, Job, JobStatus, Outcome

logger = logging.getLogger(__name__)

RECENT_JOBS = 100
"""Of an index; one that is under way is among them."""


class IngestionService:
    """Accept jobs and carry them out; the rows in the catalog are the queue."""

    def __init__(
        self, catalog: Catalog, indexes: IndexService, encoders: Encoders, tools: IngestTools
    ) -> None:
        self._catalog = catalog
        self._indexes = indexes
        self._roots = tools.roots
        self._jobs_at_once = tools.jobs
        self._work_of = JobRun(catalog, indexes, encoders, tools)
        self._freed = encoders.freed
        self._runner = uuid.uuid4().hex
        self._changed = Condition()
        self._running: dict[str, JobProgress] = {}
        self._held_up = HeldUp()
        self._events = 0  # jobs queued and jobs ended: each may let a waiting job begin
        self._is_stopping = False
        self._threads: list[Thread] = []
        self._waiting: dict[str, list[Future[None]]] = {}
        indexes.on_job = self.tell

    def start(self) -> None:
        """Take up the jobs that a former process left unfinished, then wait for new ones."""
        resumed = self._catalog.jobs.requeue_orphans(self._runner)
        if resumed:
            logger.info("resuming %d unfinished job(s)", resumed)
        self._catalog.drafts.forget_ended()
        for number in range(self._jobs_at_once):
            thread = Thread(target=self._work, name=f"jobs-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout_s: float = 20) -> None:
        """Stop in a moment; unfinished jobs go on at the next start."""
        self.begin_to_stop()
        for thread in self._threads:
            thread.join(timeout_s)

    def begin_to_stop(self) -> None:
        """Let jobs come to their end without waiting for it."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()

    def submit(self, index_name: str, path: str | None) -> Job:
        """Queue a job for `path`, or for the sources of the index's definition.

        Raises IndexNotFoundError, PathNotAllowedError, PathNotFoundError, InvalidRequestError.
        """
        index = self._indexes.find_to_change(index_name)
        job = self._catalog.jobs.create(index.name, self._wanted(index, path))
        self.tell()
        return job

    def retry(self, job_id: str) -> Job:
        """Queue a job about only the files that failed in one that has ended.

        Raises JobNotFoundError, IndexNotFoundError, and ConflictError when there is nothing to
        try again.
        """
        former = self.job(job_id)
        if former.status in ("queued", "running"):
            raise ConflictError(f"Job `{job_id}` is {former.status}; try again when it has ended.")
        self._indexes.find_to_change(former.index)
        paths = self._catalog.jobs.failed_paths(job_id)
        if not paths:
            raise ConflictError(
                f"Job `{job_id}` lists no file that failed. To read all of its files again where "
                "they changed, start a job on its path."
            )
        job = self._catalog.jobs.create_retry(former, paths)
        self.tell()
        return job

    def preview(self, index_name: str, path: str | None) -> Survey:
        """Return what a job would have to do in folders now; writes nothing.

        An index that does not exist counts as an empty one. Raises as `submit` does.
        """
        try:
            index = self._indexes.find_to_change(index_name)
        except IndexNotFoundError:
            if path is None:
                raise
            return self._work_of.preview(None, path)
        return self._work_of.preview(index, self._wanted(index, path))

    def ended(self, job_id: str) -> Future[None]:
        """Return what is done when the job has ended; waiting for it costs nothing."""
        future: Future[None] = Future()
        with self._changed:
            self._waiting.setdefault(job_id, []).append(future)
        if self._catalog.jobs.get(job_id).status not in ("queued", "running"):
            self._resolve(job_id)
        return future

    def _resolve(self, job_id: str) -> None:
        with self._changed:
            futures = self._waiting.pop(job_id, [])
        for future in futures:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    def job(self, job_id: str) -> Job:
        """Return a job; raise JobNotFoundError, also for one that whoever asks may not see.

        Its files are documents' names, so a job is for those who may change its index.
        """
        job = self._catalog.jobs.get(job_id)
        if not may_see_jobs(self._catalog, job.index):
            raise JobNotFoundError(f"Job `{job_id}` is of an index that others may change.")
        return job

    def has_open_job(self, index_name: str) -> bool:
        """Tell whether a job of an index waits or runs, as far as its newest tell."""
        newest = self._catalog.jobs.latest(RECENT_JOBS, index=index_name)
        return any(job.status in ("queued", "running") for job in newest)

    def report(self, job_id: str) -> JobReport:
        """Return a job with how far it is now; raise JobNotFoundError."""
        return self._report(self.job(job_id))

    def reports(self, limit: int, index_name: str | None = None) -> list[JobReport]:
        """Return the newest jobs first."""
        newest = self._catalog.jobs.latest(limit, index=index_name)
        return [self._report(job) for job in newest if may_see_jobs(self._catalog, job.index)]

    def files(
        self, job_id: str, *, limit: int, offset: int, outcomes: Sequence[Outcome] | None
    ) -> list[FileResult]:
        """Return a page of what the job did to each file; raise as `job` does."""
        self.job(job_id)
        return self._catalog.jobs.file_results(
            job_id, limit=limit, offset=offset, outcomes=outcomes
        )

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop within a second; what it committed stays."""
        self.job(job_id)  # may it be seen?
        job = self._catalog.jobs.request_cancel(job_id)
        if job.status == "cancelled":
            self._resolve(job_id)
        return job

    @property
    def is_stopping(self) -> bool:
        """Tell whether `stop` was called."""
        return self._is_stopping

    def _report(self, job: Job) -> JobReport:
        running = self._running.get(job.id)
        is_running = running is not None and job.status == "running"
        known = JobReport(job, None, job.bytes_done)
        if running and is_running:
            known = running.report(job)
        return replace(known, problem=self._held_up.reason(job))

    def _wanted(self, index: Index, path: str | None) -> str:
        """Return what a job is to walk, checked: a path, or none for the sources."""
        if path is None and not definition_of(index).sources:
            raise InvalidRequestError(
                f"Index `{index.name}` has no sources in its definition: name the folder or file "
                "to ingest by its absolute path, as `path`."
            )
        return str(self._roots.check(path)) if path is not None else ""

    # -- the runner's threads -----------------------------------------------------------------

    def _work(self) -> None:
        while not self._is_stopping:
            seen = self._events  # before the question, so that no job after it is missed
            try:
                job = self._catalog.jobs.claim_next(self._runner)
            except EmbedserveError as error:
                self._pause(self._held_up.note(TAKING_UP, error))
                continue
            self._held_up.end(TAKING_UP)
            if job:
                self._held_up.go_on(job.id)
                is_over = self._run_job(job)
                self._freed.tell()  # its documents
                self.tell()  # its index is free again
                if is_over:
                    self._resolve(job.id)
            else:
                self._wait_for_event(seen)

    def tell(self) -> None:
        """Say that a job was queued."""
        with self._changed:
            self._events += 1
            self._changed.notify_all()

    def _wait_for_event(self, seen: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._events != seen or self._is_stopping)

    def _pause(self, seconds: float) -> None:
        with self._changed:
            if not self._is_stopping:
                self._changed.wait(seconds)

    def _run_job(self, job: Job) -> bool:
        """Carry a job out and note its end; False when it went back into the queue."""
        status: JobStatus
        error: str | None
        error = None
        self._running[job.id] = JobProgress()
        try:
            status = self._carry_out(job)
        except JobInterruptedError:
            status = "cancelled"
        except CatalogUnavailableError as failure:
            return self._put_back(job, failure)
        except EmbedserveError as failure:
            status, error = "failed", failure.message
        except Exception as failure:  # job runner: a job's failure is its own
            logger.exception("job %s", job.id)
            status, error = "failed", f"Unexpected failure: {type(failure).__name__}; see the log."
        if self._is_stopping and status in ("cancelled", "failed"):
            return True  # stays as it is; the next start resumes it
        if self._note(job, partial(self._finished, job, status, error)):
            logger.info("job %s on index %s: %s", job.id, job.index, status)
            self._held_up.end(job.id)
        self._running.pop(job.id, None)
        return True

    def _finished(self, job: Job, status: JobStatus, error: str | None) -> Job:
        """Write a job's end; what it staged and did not commit is for nobody."""
        self._catalog.drafts.forget(job.id)
        return self._catalog.jobs.finish(job.id, status, error=error)

    def _put_back(self, job: Job, failure: EmbedserveError) -> bool:
        """Queue a job again for which the catalog could not be written; what is committed stays.

        Tells whether it is over nevertheless: cancelled, or the server stops.
        """
        self._pause(self._held_up.note(job.id, failure))
        left = self._note(job, partial(self._catalog.jobs.requeue, job.id))
        self._running.pop(job.id, None)
        if left and left.status == "queued":
            return self._is_stopping
        self._held_up.end(job.id)
        return True

    def _note(self, job: Job, write: Callable[[], Job]) -> Job | None:
        """Write how a job stands, as often as it takes; None when the server stops before."""
        while True:
            try:
                return write()
            except EmbedserveError as error:
                if self._is_stopping:
                    return None  # the next start runs the job again
                self._pause(self._held_up.note(job.id, error))

    def _carry_out(self, job: Job) -> JobStatus:
        interruption = Interruption(
            lambda: self._is_stopping, partial(self._catalog.jobs.is_cancel_requested, job.id)
        )
        return self._work_of.run(job, interruption, self._running[job.id])
