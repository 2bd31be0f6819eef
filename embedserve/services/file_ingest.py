"""One file of a job: extracted, chunked, embedded, and committed in one catalog transaction.

A file that fails is a row with its reason; the others go on.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedserve.engine.encoder import Encoder
from embedserve.errors import CatalogError, ExtractionError, OverloadedError
from embedserve.ingest.chunk import Chunker
from embedserve.ingest.chunk_stream import CutTo, chunk_stream
from embedserve.ingest.extract import ExtractorPool
from embedserve.services.document_vectors import DocumentVectors
from embedserve.services.drafting import Drafting, gathered, origin_of
from embedserve.services.file_problems import outcome_of, problem_of, unexpected
from embedserve.services.found import Found
from embedserve.services.interruption import Interruption, JobInterruptedError
from embedserve.services.job_progress import JobProgress
from embedserve.services.kept_files import read_kept
from embedserve.services.token_budget import TokenBudget
from embedserve.store.catalog import Catalog
from embedserve.types import (
    Draft,
    Extraction,
    FileProblem,
    FileResult,
    FoundFile,
    Index,
    Job,
    KnownFile,
    NewDocument,
    Provenance,
    Work,
)

logger = logging.getLogger(__name__)


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
    max_files: int
    """That the targets of a job may hold together."""


@dataclass(frozen=True)
class _Document:
    version: NewDocument
    work: Work


class FileIngest:
    """Ingest files for one job."""

    def __init__(self, tools: Tools, job: Job, index: Index, *, budget: TokenBudget) -> None:
        self._tools = tools
        self._catalog = tools.catalog
        self._interruption = tools.interruption
        self._job = job
        self._index = index
        self._budget = budget
        self._chunker = Chunker(self._offsets, max_tokens=budget.chunk)
        self._vectors = DocumentVectors(
            tools.catalog,
            tools.encoder,
            index,
            budget=budget,
            interruption=tools.interruption,
        )

    def ingest(self, found: Found, known: KnownFile | None) -> None:
        """Read, cut, embed and commit one file; what is wrong with it becomes its row.

        Raises JobInterruptedError.
        """
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
        # Behind that: the catalog counts the file by now, and a long draft takes a while.
        if document and document.version.draft:
            self._catalog.drafts.discard(document.version.draft)

    def _read(self, found: Found, known: KnownFile | None) -> _Document | None:
        """Return what is to be committed; None when that is done, or nothing has changed."""
        self._interruption.check()
        file = found.file
        try:
            extraction = self._extraction(found)
            try:
                if not self._is_same(found, known, extraction):
                    return self._document(found, extraction)
            finally:
                if extraction.long_text:
                    extraction.long_text.close()
        except ExtractionError as error:
            # A worker that was ended with the job, or with the server, says nothing of the file.
            self._interruption.check()
            if error.code != "shutting_down":  # then the next start does it again
                self.give_up(file, problem_of(file.path, error), found.provenance)
        except (CatalogError, OverloadedError, JobInterruptedError):
            raise  # nothing is wrong with the file
        except Exception as error:  # per-file ingest: one file's failure is one row
            logger.exception("ingesting %s", file.path)
            self.give_up(file, unexpected(file.path, error), found.provenance)
        return None

    def _extraction(self, found: Found) -> Extraction:
        if found.place is not None:
            return read_kept(self._tools.extractors, found, is_abandoned=self._interruption)
        return self._tools.extractors.extract(
            Path(found.file.path), found.root, is_abandoned=self._interruption
        )

    def _is_same(self, found: Found, known: KnownFile | None, extraction: Extraction) -> bool:
        """Tell whether a file's bytes are known already, and note its new times."""
        is_known = known and not known.problem and extraction.sha256 == known.sha256
        if known is None or not is_known or found.provenance.source == "upload":
            return False
        self._catalog.documents.touch(
            self._index, found.file, job_id=self._job.id, origin=found.provenance
        )
        self.record_unchanged([known])
        return True

    def give_up(self, file: FoundFile, problem: FileProblem, origin: Provenance) -> None:
        """Note why a file gave nothing."""
        # What may succeed on the next run keeps its former version until then.
        self._catalog.documents.commit_problem(
            self._index,
            KnownFile(file.path, file.size_bytes, file.mtime_ns, "", problem, origin),
            job_id=self._job.id,
            outcome=outcome_of(problem),
            keep_previous=problem.is_retryable,
        )
        self._tools.wake_index()

    def _document(self, found: Found, extraction: Extraction) -> _Document:
        file = found.file
        drafting = Drafting(
            self._catalog,
            self._index,
            job_id=self._job.id,
            path=file.path,
            origin=origin_of(extraction, self._index, self._budget),
        )
        bytes_per_char = file.size_bytes / max(extraction.length, 1)

        def advance(draft: Draft) -> None:
            self._tools.progress.advance(file.path, int(draft.chars * bytes_per_char))

        windows, keep = self._windows(extraction, drafting), drafting.keeper(advance)
        last = self._vectors.embed(extraction.title, windows, keep)
        if last is None:
            raise ExtractionError(
                "no_text", "The file holds no text.", stage="chunk", hint="Nothing to index."
            )
        version = NewDocument(
            path=file.path,
            size_bytes=extraction.size_bytes,
            mtime_ns=file.mtime_ns,
            sha256=extraction.sha256,
            title=extraction.title,
            kind=extraction.kind,
            chunks=last.part.chunks,
            text_hashes=last.part.text_hashes,
            new_hashes=last.part.new_hashes,
            vectors=last.part.vectors,
            warnings=extraction.warnings,
            provenance=found.provenance,
            draft=drafting.draft,
        )
        return _Document(version, replace(last.work, bytes_read=file.size_bytes))

    def _windows(self, extraction: Extraction, drafting: Drafting) -> Iterator[CutTo]:
        """Yield the chunks that are not staged yet."""
        if extraction.long_text is None:
            chunks = self._chunker.chunk(
                extraction.text, extraction.kind, extraction.pages, extraction.members
            )
            yield from drafting.windows(chunks)
            return
        done = drafting.open()
        cuts = chunk_stream(
            self._checked(extraction.long_text.pieces()),
            extraction.kind,
            self._chunker,
            skip_chars=done.chars,
            ordinal=done.chunks,
        )
        yield from gathered(cuts)

    def _checked(self, pieces: Iterator[str]) -> Iterator[str]:
        """Let a cancelled job end between two pieces: what is staged is passed over unmeasured."""
        for piece in pieces:
            self._interruption.check()
            yield piece

    def _offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        # A large document is measured in many steps; a cancelled job ends between two of them.
        self._interruption.check()
        return self._tools.encoder.offsets(texts)

    def record_unchanged(self, files: Iterable[KnownFile]) -> None:
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
