"""One job from its row in the catalog to its end: folders, uploads, addresses, in that order."""

import logging
from collections.abc import Collection
from dataclasses import dataclass, replace

from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.fetch import Fetcher
from embedserve.ingest.scan import ScanRules
from embedserve.services.definitions import IndexDefinition, definition_of
from embedserve.services.encoders import Encoders
from embedserve.services.file_ingest import Tools
from embedserve.services.index_worker import IndexWorker
from embedserve.services.indexes import IndexService
from embedserve.services.ingest_plan import Survey, Target, survey
from embedserve.services.ingest_run import IngestRun
from embedserve.services.interruption import Interruption
from embedserve.services.job_progress import JobProgress
from embedserve.services.kept_files import kept_files
from embedserve.services.reembedding import Reembedding
from embedserve.services.roots import AllowedRoots
from embedserve.services.token_budget import chunk_budget
from embedserve.services.url_run import UrlRun, UrlTools
from embedserve.store.catalog import Catalog
from embedserve.store.upload_files import UploadFiles
from embedserve.store.uploads import UPLOADS_PATH
from embedserve.types import Index, Job, JobStatus

logger = logging.getLogger(__name__)

# A job ends once its vectors can be found; with the vector index down it ends all the same.
APPLY_TIMEOUT_S = 60


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


class JobRun:
    """Carry out jobs, several at a time."""

    def __init__(
        self, catalog: Catalog, indexes: IndexService, encoders: Encoders, tools: IngestTools
    ) -> None:
        self._catalog = catalog
        self._indexes = indexes
        self._encoders = encoders
        self._tools = tools

    def run(self, job: Job, interruption: Interruption, progress: JobProgress) -> JobStatus:
        """Carry out one job; raise JobInterruptedError when it is to stop."""
        index = self._catalog.indexes.get(job.index)
        if job.kind == "reembed":
            self._reembed(job, index, interruption, progress)
            return "succeeded"
        encoder = self._encoders.get(index.model)
        for warning in self._indexes.check_vectors(index, encoder):
            logger.warning("job %s: %s", job.id, warning)
        definition = definition_of(index)
        tools = Tools(
            catalog=self._catalog,
            extractors=self._tools.extractors,
            encoder=encoder,
            wake_index=self._wake_index,
            interruption=interruption,
            progress=progress,
            files_at_once=self._tools.files_at_once,
            max_files=self._tools.max_files,
        )
        run = IngestRun(tools, job, index, budget=chunk_budget(encoder, definition))
        self._ingest(run, job, index, interruption)
        interruption.check()
        # All is committed; from here on the job has succeeded, whatever the vector index does.
        progress.begin_indexing()
        self._tools.index_worker.wait_until_applied(
            index.id, APPLY_TIMEOUT_S, is_interrupted=interruption
        )
        failed = self._catalog.jobs.get(job.id).counts.get("failed", 0)
        return "succeeded_with_errors" if failed else "succeeded"

    def _wake_index(self) -> None:
        self._tools.index_worker.wake()
        self._encoders.freed.tell()  # the text of a file, its tokens, its chunks

    def _reembed(
        self, job: Job, index: Index, interruption: Interruption, progress: JobProgress
    ) -> None:
        progress.begin_reading(job.bytes_done)
        worker = self._tools.index_worker
        Reembedding(self._catalog, self._encoders, worker, interruption.check).run(job, index)
        progress.begin_indexing()
        worker.wait_until_applied(index.id, APPLY_TIMEOUT_S, is_interrupted=interruption)

    def preview(self, index: Index | None, path: str) -> Survey:
        """Return what a job would have to do in folders now; no index: an empty one."""
        if index is None:
            below = self._tools.roots.check(path)
            targets = [Target(below, ScanRules(), below)]
        else:
            targets = self.targets(path, definition_of(index))
        index_id = index.id if index else None
        return survey(self._catalog, index_id, targets, max_files=self._tools.max_files)

    def _ingest(self, run: IngestRun, job: Job, index: Index, interruption: Interruption) -> None:
        definition, only = definition_of(index), self._catalog.jobs.paths(job.id)
        is_upload, is_whole = job.path.startswith(UPLOADS_PATH), not job.path
        if not is_upload:
            run.run(self.targets(job.path, definition), only=only)
        if is_upload or is_whole:
            self._ingest_uploads(run, job, index, only)
        if is_whole:
            tools = UrlTools(self._catalog, self._tools.fetcher, self._tools.max_urls, interruption)
            UrlRun(tools, run, job, index).run(definition.sources, only=only)

    def _ingest_uploads(
        self, run: IngestRun, job: Job, index: Index, only: Collection[str]
    ) -> None:
        if only:
            self._catalog.uploads.take(index.id, job.id, only)
        else:
            self._catalog.uploads.adopt(index.id, job.id)
        uploads = self._catalog.uploads.of_job(index.id, job.id)
        run.ingest_kept(kept_files(self._tools.uploads.folder(index.id), uploads))

    def targets(self, path: str, definition: IndexDefinition) -> list[Target]:
        """Return what a job walks: its own path under its source's rules, or every source.

        The roots are asked again: since the job was queued a link may have been put in the way,
        or the server started with other roots.
        """
        targets = []
        for source in [source for source in definition.sources if source.path]:
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
