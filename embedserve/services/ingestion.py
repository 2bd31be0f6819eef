"""Ingestion jobs: accepted, run in turn by a few threads, resumed after any stop."""

import logging
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from threading import Condition, Thread

from embedserve.errors import EmbedserveError, InvalidRequestError
from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.fetch import Fetcher
from embedserve.ingest.scan import ScanRules
from embedserve.services.definitions import IndexDefinition
from embedserve.services.encoders import Encoders
from embedserve.services.index_worker import IndexWorker
from embedserve.services.indexes import IndexService
from embedserve.services.ingest_run import IngestRun, JobInterruptedError, Target, Tools
from embedserve.services.kept_files import kept_files
from embedserve.services.roots import AllowedRoots
from embedserve.services.token_budget import chunk_budget
from embedserve.services.url_run import UrlRun, UrlTools
from embedserve.store.catalog import Catalog
from embedserve.store.upload_files import UploadFiles
from embedserve.store.uploads import UPLOADS_PATH
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
    uploads: UploadFiles
    fetcher: Fetcher
    max_files: int
    """Files that the folders of one job may hold."""
    max_urls: int
    """Addresses that the sources of one index may list."""
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
        self._events = 0  # jobs queued and jobs ended: each may let a waiting job begin
        self._is_stopping = False
        self._threads: list[Thread] = []
        self._waiting: dict[str, list[Future[None]]] = {}

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
        """Stop after the files in hand; unfinished jobs go on at the next start."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout_s)

    def submit(self, index_name: str, path: str | None) -> Job:
        """Queue a job for `path`, or for the sources of the index's definition.

        Raises IndexNotFoundError, PathNotAllowedError, PathNotFoundError, InvalidRequestError.
        """
        index = self._indexes.find(index_name)
        if path is None and not _definition(index).sources:
            raise InvalidRequestError(
                f"Index `{index_name}` has no sources in its definition: name the folder or file "
                "to ingest by its absolute path, as `path`."
            )
        target = str(self._tools.roots.check(path)) if path is not None else ""
        job = self._catalog.jobs.create(index.name, target)
        self.tell()
        return job

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
        """Return a job; raise JobNotFoundError."""
        return self._catalog.jobs.get(job_id)

    def jobs(self, limit: int, index_name: str | None = None) -> list[Job]:
        """Return the newest jobs first."""
        return self._catalog.jobs.latest(limit, index=index_name)

    def files(
        self, job_id: str, *, limit: int, offset: int, outcomes: Sequence[Outcome] | None
    ) -> list[FileResult]:
        """Return a page of what the job did to each file."""
        return self._catalog.jobs.file_results(
            job_id, limit=limit, offset=offset, outcomes=outcomes
        )

    def cancel(self, job_id: str) -> Job:
        """Ask a job to stop after the files in hand; what it committed stays."""
        job = self._catalog.jobs.request_cancel(job_id)
        if job.status == "cancelled":
            self._resolve(job_id)
        return job

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
                self.tell()  # its index is free again
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

    def _run_job(self, job: Job) -> None:
        status: JobStatus
        error: str | None
        error = None
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
        tools = Tools(
            catalog=self._catalog,
            extractors=self._tools.extractors,
            encoder=encoder,
            wake_index=self._tools.index_worker.wake,
            is_interrupted=partial(self._is_interrupted, job.id),
            files_at_once=self._tools.files_at_once,
            max_files=self._tools.max_files,
        )
        run = IngestRun(tools, job, index, budget=chunk_budget(encoder, definition))
        self._carry_out_run(run, job, index, definition)
        if tools.is_interrupted():
            raise JobInterruptedError
        # All is committed; from here on the job has succeeded, whatever the vector index does.
        self._tools.index_worker.wait_until_applied(
            index.id, APPLY_TIMEOUT_S, is_interrupted=tools.is_interrupted
        )
        failed = self._catalog.jobs.get(job.id).counts.get("failed", 0)
        return "succeeded_with_errors" if failed else "succeeded"

    def _is_interrupted(self, job_id: str) -> bool:
        return self._is_stopping or self._catalog.jobs.is_cancel_requested(job_id)

    def _carry_out_run(
        self, run: IngestRun, job: Job, index: Index, definition: IndexDefinition
    ) -> None:
        is_upload, is_whole = job.path.startswith(UPLOADS_PATH), not job.path
        if not is_upload:
            run.run(self._targets(job, definition))
        if is_upload or is_whole:
            self._catalog.uploads.adopt(index.id, job.id)
            uploads = self._catalog.uploads.of_job(index.id, job.id)
            run.ingest_kept(kept_files(self._tools.uploads.folder(index.id), uploads))
        if is_whole:
            is_interrupted = partial(self._is_interrupted, job.id)
            tools = UrlTools(
                self._catalog, self._tools.fetcher, self._tools.max_urls, is_interrupted
            )
            UrlRun(tools, run, job, index).run(definition.sources)

    def _targets(self, job: Job, definition: IndexDefinition) -> list[Target]:
        """Return what a job walks: its own path under its source's rules, or every source.

        The roots are asked again: since the job was queued a link may have been put in the way,
        or the server started with other roots.
        """
        targets = []
        for source in [source for source in definition.sources if source.path]:
            root = self._tools.roots.allow(source.path)
            rules = ScanRules(include=source.include, exclude=source.exclude)
            targets.append(Target(root, rules, below=root))
        if not job.path:
            return targets
        below = self._tools.roots.check(job.path)
        for target in targets:
            if below.is_relative_to(target.root):
                return [replace(target, below=below)]
        return [Target(below, ScanRules(), below)]


def _definition(index: Index) -> IndexDefinition:
    return IndexDefinition.model_validate_json(index.definition)
