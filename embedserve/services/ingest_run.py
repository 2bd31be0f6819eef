"""One ingestion job from survey to last commit. Everything it does, it can do again.

Files pass through extract -> chunk -> embed -> one catalog transaction each, a few files at a
time. A file that fails is a row with its reason; the others go on.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedserve.engine.encoder import Encoder
from embedserve.errors import CatalogError, ExtractionError, OverloadedError
from embedserve.ingest.chunk import chunk
from embedserve.ingest.extract import ExtractorPool
from embedserve.services.document_vectors import DocumentVectors
from embedserve.services.file_problems import outcome_of, problem_of, unexpected
from embedserve.services.ingest_plan import (
    Found,
    Survey,
    Target,
    renamed,
    sum_of_bytes,
    survey,
)
from embedserve.services.interruption import Interruption, JobInterruptedError
from embedserve.services.job_progress import JobProgress
from embedserve.services.token_budget import TokenBudget
from embedserve.store.catalog import Catalog
from embedserve.types import (
    Extraction,
    FileProblem,
    FileResult,
    FoundFile,
    Index,
    Job,
    KnownFile,
    NewDocument,
    Plan,
    Work,
)

logger = logging.getLogger(__name__)

BYTES_AT_ONCE = 16 * 1024 * 1024
"""Of the files that one job has in work; text and chunks take some times as much memory."""


@dataclass(frozen=True)
class Tools:
    """What a run works with."""

    catalog: Catalog
    extractors: ExtractorPool
    encoder: Encoder
    wake_index: Callable[[], None]
    interruption: Interruption
    progress: JobProgress
    files_at_once: int


@dataclass(frozen=True)
class _Document:
    version: NewDocument
    work: Work


class IngestRun:
    """Bring one index in step with folders or files."""

    def __init__(self, tools: Tools, job: Job, index: Index, *, budget: TokenBudget) -> None:
        self._tools = tools
        self._catalog = tools.catalog
        self._interruption = tools.interruption
        self._job = job
        self._index = index
        self._budget = budget
        self._vectors = DocumentVectors(
            tools.catalog,
            tools.encoder,
            index,
            budget=budget,
            job_id=job.id,
            interruption=tools.interruption,
        )

    def run(self, targets: Sequence[Target], *, only: Collection[str] = ()) -> None:
        """Ingest every target, or of them `only` some paths; raise JobInterruptedError."""
        seen = survey(
            self._catalog, self._index.id, targets, only=only, interruption=self._interruption
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

    def _carry_out(self, seen: Survey) -> None:
        self._record_unchanged(seen.plan.unchanged)
        work = self._move_renamed(seen)
        for path in work.delete:
            self._interruption.check()
            self._catalog.documents.delete(self._index, path, job_id=self._job.id)
            self._tools.wake_index()
        self._in_parallel(
            (*work.add, *work.update),
            lambda file: self._ingest(seen.found[file.path], seen.known.get(file.path)),
        )

    def _record_unchanged(self, files: Iterable[KnownFile]) -> None:
        """Note files that need no work; one that could not be read before still cannot."""
        results = [
            FileResult(
                file.path,
                outcome_of(file.problem) if file.problem else "unchanged",
                problem=file.problem,
            )
            for file in files
        ]
        # A resumed job keeps what it noted before: `added` must not become `unchanged`.
        self._catalog.jobs.record_files(self._job.id, results, only_if_absent=True)

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

    def _in_parallel(self, files: Iterable[FoundFile], ingest: Callable[[FoundFile], None]) -> None:
        """Ingest a few files at a time, the first error ends it.

        No more bytes of them are in memory than BYTES_AT_ONCE, unless one file alone has more.
        """
        running: dict[Future[None], int] = {}
        limit = self._tools.files_at_once
        with ThreadPoolExecutor(limit, thread_name_prefix=f"ingest-{self._index.name}") as pool:
            for file in files:
                self._interruption.check()
                while running and (
                    len(running) >= limit or sum(running.values()) + file.size_bytes > BYTES_AT_ONCE
                ):
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        del running[future]
                        future.result()
                running[pool.submit(ingest, file)] = file.size_bytes
            for future in running:
                future.result()

    # -- one file -----------------------------------------------------------------------------

    def _ingest(self, found: Found, known: KnownFile | None) -> None:
        try:
            document = self._read(found, known)
            if document:
                self._catalog.documents.commit(
                    self._index,
                    document.version,
                    job_id=self._job.id,
                    outcome="updated" if known else "added",
                    work=document.work,
                )
                self._tools.wake_index()
        finally:
            self._tools.progress.end(found.file.path)

    def _read(self, found: Found, known: KnownFile | None) -> _Document | None:
        """Return what is to be committed; None when that is done, or nothing has changed."""
        self._interruption.check()
        file = found.file
        try:
            extraction = self._tools.extractors.extract(
                Path(file.path), found.root, is_abandoned=self._interruption
            )
            if known and not known.problem and extraction.sha256 == known.sha256:
                self._catalog.documents.touch(self._index, file, job_id=self._job.id)
                self._record_unchanged([known])
                return None
            return self._document(file, extraction)
        except ExtractionError as error:
            # A worker that was ended with the job, or with the server, says nothing of the file.
            self._interruption.check()
            if error.code != "shutting_down":  # then the next start does it again
                self._give_up(file, problem_of(file.path, error))
        except (CatalogError, OverloadedError, JobInterruptedError):
            raise  # nothing is wrong with the file
        except Exception as error:  # per-file ingest: one file's failure is one row
            logger.exception("ingesting %s", file.path)
            self._give_up(file, unexpected(file.path, error))
        return None

    def _give_up(self, file: FoundFile, problem: FileProblem) -> None:
        # What may succeed on the next run keeps its former version until then.
        self._catalog.documents.commit_problem(
            self._index,
            KnownFile(file.path, file.size_bytes, file.mtime_ns, sha256="", problem=problem),
            job_id=self._job.id,
            outcome=outcome_of(problem),
            keep_previous=problem.is_retryable,
        )
        self._tools.wake_index()

    def _document(self, file: FoundFile, extraction: Extraction) -> _Document:
        chunks = chunk(
            extraction.text,
            extraction.kind,
            extraction.pages,
            self._offsets,
            max_tokens=self._budget.chunk,
        )
        if not chunks:
            raise ExtractionError(
                "no_text", "The file holds no text.", stage="chunk", hint="Nothing to index."
            )
        bytes_per_char = file.size_bytes / len(extraction.text)

        def advance(count: int) -> None:
            self._tools.progress.advance(file.path, int(chunks[count - 1].end * bytes_per_char))

        embedded = self._vectors.embed(extraction.title, chunks, advance)
        version = NewDocument(
            path=file.path,
            size_bytes=extraction.size_bytes,
            mtime_ns=file.mtime_ns,
            sha256=extraction.sha256,
            title=extraction.title,
            kind=extraction.kind,
            chunks=tuple(chunks),
            text_hashes=embedded.text_hashes,
            new_hashes=embedded.new_hashes,
            vectors=embedded.vectors,
            warnings=extraction.warnings,
        )
        return _Document(version, replace(embedded.work, bytes_read=file.size_bytes))

    def _offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        # A large document is measured in many steps; a cancelled job ends between two of them.
        self._interruption.check()
        return self._tools.encoder.offsets(texts)
