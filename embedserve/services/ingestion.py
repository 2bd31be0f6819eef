"""Ingestion jobs: accepted, run in turn by a few threads, resumed after any stop."""

import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from threading import Condition, Thread

from embedserve.errors import (
    ConflictError,
    EmbedserveError,
    IndexNotFoundError,
    InvalidRequestError,
)
from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.scan import ScanRules
from embedserve.services.definitions import IndexDefinition
from embedserve.services.encoders import Encoders
from embedserve.services.index_worker import IndexWorker
from embedserve.services.indexes import IndexService
from embedserve.services.ingest_plan import Survey, Target, survey
from embedserve.services.ingest_run import IngestRun, Tools
from embedserve.services.interruption import Interruption, JobInterruptedError
from embedserve.services.job_progress import JobProgress, JobReport
from embedserve.services.roots import AllowedRoots
from embedserve.services.token_budget import chunk_budget
from embedserve.store.catalog import Catalog
from embedserve.types import FileResult, Index, Job, JobStatus, Outcome

logger = logging.getLogger(__name__)

# A job ends once its vectors can be found; with the vector index down it ends all the same.
APPLY_TIMEOUT_S = 60
CATALOG_RETRY_S = 2


@dataclass(frozen=True)
class IngestTools:
    """What jobs work with, and how much of it runs at once."""

    extractors: ExtractorPool
    index_worker: IndexWorker
    roots: AllowedRoots
    jobs: int
    files_at_once: int


class IngestionService:
    """Accept jobs and carry them out; the rows in the catalog are the queue."""

    def __init__(
        self, catalog: Catalog, indexes: IndexService, encoders: Encoders, tools: IngestTools
    ) -> None:
        self._catalog = catalog
        self._indexes = indexes
        self._encoders = encoders
        self._tools = tools
        self._runner = uuid.uuid4().hex
        self._changed = Condition()
        self._running: dict[str, JobProgress] = {}
        self._events = 0  # jobs queued and jobs ended: each may let a waiting job begin
        self._is_stopping = False
        self._threads: list[Thread] = []

    def start(self) -> None:
        """Take up the jobs that a former process left unfinished, then wait for new ones."""
        resumed = self._catalog.jobs.requeue_orphans(self._runner)
        if resumed:
            logger.info("resuming %d unfinished job(s)", resumed)
        for number in range(self._tools.jobs):
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
        index = self._indexes.find(index_name)
        job = self._catalog.jobs.create(index.name, self._wanted(index, path))
        self._tell()
        return job

    def retry(self, job_id: str) -> Job:
        """Queue a job about only the files that failed in one that has ended.

        Raises JobNotFoundError, IndexNotFoundError, and ConflictError when there is nothing to
        try again.
        """
        former = self._catalog.jobs.get(job_id)
        if former.status in ("queued", "running"):
            raise ConflictError(f"Job `{job_id}` is {former.status}; try again when it has ended.")
        self._indexes.find(former.index)
        paths = self._catalog.jobs.failed_paths(job_id)
        if not paths:
            raise ConflictError(
                f"Job `{job_id}` lists no file that failed. To read all of its files again where "
                "they changed, start a job on its path."
            )
        job = self._catalog.jobs.create_retry(former, paths)
        self._tell()
        return job

    def preview(self, index_name: str, path: str | None) -> Survey:
        """Return what a job would have to do now; writes nothing.

        An index that does not exist counts as an empty one. Raises as `submit` does.
        """
        try:
            index = self._indexes.find(index_name)
        except IndexNotFoundError:
            if path is None:
                raise
            below = self._tools.roots.check(path)
            return survey(self._catalog, None, [Target(below, ScanRules(), below)])
        wanted = self._wanted(index, path)
        return survey(self._catalog, index.id, self._targets(wanted, _definition(index)))

    def job(self, job_id: str) -> Job:
        """Return a job; raise JobNotFoundError."""
        return self._catalog.jobs.get(job_id)

    def report(self, job_id: str) -> JobReport:
        """Return a job with how far it is now; raise JobNotFoundError."""
        return self._report(self.job(job_id))

    def reports(self, limit: int, index_name: str | None = None) -> list[JobReport]:
        """Return the newest jobs first."""
        return [self._report(job) for job in self._catalog.jobs.latest(limit, index=index_name)]

    def files(
        self, job_id: str, *, limit: int, offset: int, outcomes: Sequence[Outcome] | None
    ) -> list[FileResult]:
        """Return a page of what the job did to each file."""
        return self._catalog.jobs.file_results(
            job_id, limit=limit, offset=offset, outcomes=outcomes
        )

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop within a second; what it committed stays."""
        return self._catalog.jobs.request_cancel(job_id)

    @property
    def is_stopping(self) -> bool:
        """Tell whether `stop` was called."""
        return self._is_stopping

    def _report(self, job: Job) -> JobReport:
        running = self._running.get(job.id)
        is_running = running is not None and job.status == "running"
        return (
            running.report(job) if running and is_running else JobReport(job, None, job.bytes_done)
        )

    def _wanted(self, index: Index, path: str | None) -> str:
        """Return what a job is to walk, checked: a path, or none for the sources."""
        if path is None and not _definition(index).sources:
            raise InvalidRequestError(
                f"Index `{index.name}` has no sources in its definition: name the folder or file "
                "to ingest by its absolute path, as `path`."
            )
        return str(self._tools.roots.check(path)) if path is not None else ""

    # -- the runner's threads -----------------------------------------------------------------

    def _work(self) -> None:
        while not self._is_stopping:
            seen = self._events  # before the question, so that no job after it is missed
            try:
                job = self._catalog.jobs.claim_next(self._runner)
            except EmbedserveError:
                logger.exception("the catalog gives no job")
                self._pause(CATALOG_RETRY_S)
                continue
            if job:
                self._run_job(job)
                self._tell()  # its index is free again
            else:
                self._wait_for_event(seen)

    def _tell(self) -> None:
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

    def _run_job(self, job: Job) -> None:
        status: JobStatus
        error: str | None
        error = None
        self._running[job.id] = JobProgress()
        try:
            status = self._carry_out(job)
        except JobInterruptedError:
            status = "cancelled"
        except EmbedserveError as failure:
            status, error = "failed", failure.message
        except Exception as failure:  # job runner: a job's failure is its own
            logger.exception("job %s", job.id)
            status, error = "failed", f"Unexpected failure: {type(failure).__name__}; see the log."
        if self._is_stopping and status in ("cancelled", "failed"):
            return  # stays as it is; the next start resumes it
        self._finish(job, status, error)
        self._running.pop(job.id, None)

    def _finish(self, job: Job, status: JobStatus, error: str | None) -> None:
        """Note a job's end, as often as it takes: the disk that failed the job may be full."""
        while True:
            try:
                self._catalog.jobs.finish(job.id, status, error=error)
            except EmbedserveError:
                if self._is_stopping:
                    return  # the next start runs the job again
                logger.exception("job %s: %s, but the catalog cannot note it", job.id, status)
                self._pause(CATALOG_RETRY_S)
                continue
            logger.info("job %s on index %s: %s", job.id, job.index, status)
            return

    def _carry_out(self, job: Job) -> JobStatus:
        index = self._catalog.indexes.get(job.index)
        encoder = self._encoders.get(index.model)
        for warning in self._indexes.check_vectors(index, encoder):
            logger.warning("job %s: %s", job.id, warning)
        definition = _definition(index)
        interruption = Interruption(
            lambda: self._is_stopping, partial(self._catalog.jobs.is_cancel_requested, job.id)
        )
        tools = Tools(
            catalog=self._catalog,
            extractors=self._tools.extractors,
            encoder=encoder,
            wake_index=self._tools.index_worker.wake,
            interruption=interruption,
            progress=self._running[job.id],
            files_at_once=self._tools.files_at_once,
        )
        run = IngestRun(tools, job, index, budget=chunk_budget(encoder, definition))
        run.run(self._targets(job.path, definition), only=self._catalog.jobs.paths(job.id))
        interruption.check()
        # All is committed; from here on the job has succeeded, whatever the vector index does.
        tools.progress.begin_indexing()
        self._tools.index_worker.wait_until_applied(
            index.id, APPLY_TIMEOUT_S, is_interrupted=interruption
        )
        failed = self._catalog.jobs.get(job.id).counts.get("failed", 0)
        return "succeeded_with_errors" if failed else "succeeded"

    def _targets(self, path: str, definition: IndexDefinition) -> list[Target]:
        """Return what a job walks: its own path under its source's rules, or every source.

        The roots are asked again: since the job was queued a link may have been put in the way,
        or the server started with other roots.
        """
        targets = []
        for source in definition.sources:
            root = self._tools.roots.allow(source.path)
            rules = ScanRules(include=source.include, exclude=source.exclude)
            targets.append(Target(root, rules, below=root))
        if not path:
            return targets
        below = self._tools.roots.check(path)
        for target in targets:
            if below.is_relative_to(target.root):
                return [replace(target, below=below)]
        return [Target(below, ScanRules(), below)]


def _definition(index: Index) -> IndexDefinition:
    return IndexDefinition.model_validate_json(index.definition)
