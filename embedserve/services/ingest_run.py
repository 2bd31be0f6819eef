"""One ingestion job from scan to last commit. Everything it does, it can do again.

Files pass through scan -> plan -> extract -> chunk -> embed -> one catalog transaction each, a
few files at a time. A file that fails is a row with its reason; the others go on.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedserve.engine.encoder import Encoder
from embedserve.errors import CatalogError, DefinitionError, EmbedserveError, ExtractionError
from embedserve.ingest.chunk import chunk, prefix
from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.scan import ScanRules, plan, scan, sha256_file
from embedserve.services.definitions import DEFAULT_CHUNK_TOKENS, Source
from embedserve.store.catalog import Catalog
from embedserve.types import (
    Chunk,
    Extraction,
    FileProblem,
    FileResult,
    FoundFile,
    Index,
    Job,
    KnownFile,
    NewDocument,
    Outcome,
    Plan,
    Vectors,
)

logger = logging.getLogger(__name__)


class JobInterruptedError(Exception):
    """The job was cancelled, or the server is stopping."""


@dataclass(frozen=True)
class Tools:
    """What a run works with."""

    catalog: Catalog
    extractors: ExtractorPool
    encoder: Encoder
    wake_index: Callable[[], None]
    is_interrupted: Callable[[], bool]
    files_at_once: int


@dataclass(frozen=True)
class TokenBudget:
    """How the model's length is shared out; together it is never exceeded."""

    prefix: int
    """Tokens of title and headings in front of a chunk."""
    chunk: int
    """Tokens of the chunk itself."""


# Special tokens, and the few by which a text's count changes when it stands alone.
SPARE_TOKENS = 10


def token_budget(model_tokens: int, prompt_tokens: int, wanted: int | None) -> TokenBudget:
    """Share out a model's length; raise DefinitionError when `wanted` does not fit."""
    room = model_tokens - prompt_tokens - SPARE_TOKENS
    prefix_tokens = min(100, room // 3)
    largest = room - prefix_tokens
    if wanted and wanted > largest:
        raise DefinitionError(
            f"`chunking.max_tokens` is {wanted}, but the index's model takes {model_tokens} "
            f"tokens, of which a chunk may use {largest}. Lower it, or choose a longer model."
        )
    return TokenBudget(prefix_tokens, wanted or min(DEFAULT_CHUNK_TOKENS, largest))


class IngestRun:
    """Bring one index in step with one folder or file."""

    def __init__(self, tools: Tools, job: Job, index: Index, *, budget: TokenBudget) -> None:
        self._tools = tools
        self._catalog = tools.catalog
        self._encoder = tools.encoder
        self._job = job
        self._index = index
        self._budget = budget
        self._noted = 0

    def run(self, sources: Sequence[Source]) -> None:
        """Ingest every source; raise JobInterruptedError when told to stop."""
        known = [
            self._catalog.documents.known_files(self._index.id, source.path) for source in sources
        ]
        plans = [self._plan(source, files) for source, files in zip(sources, known, strict=True)]
        # A resumed job has deleted and noted some already; they are no longer in the plan.
        total = self._noted + self._job.counts.get("deleted", 0)
        total += sum(
            len(work.add) + len(work.update) + len(work.delete) + len(work.unchanged)
            for work in plans
        )
        self._catalog.jobs.set_files_total(self._job.id, total)
        for source, files, work in zip(sources, known, plans, strict=True):
            self._carry_out(work, files, root=Path(source.path))

    def _plan(self, source: Source, known: dict[str, KnownFile]) -> Plan:
        root = Path(source.path)
        problems: list[FileProblem] = []
        if root.exists():
            rules = ScanRules(include=source.include, exclude=source.exclude)
            found = list(scan(root, rules, problems.append))
        else:
            # A source that is gone may be a disk that is not mounted: nothing is deleted for it.
            found = []
            problems.append(_missing_source(source.path))
        results = [
            FileResult(problem.path, _outcome_of(problem), problem=problem) for problem in problems
        ]
        self._catalog.jobs.record_files(self._job.id, results)
        self._noted += len(results)
        # What lies below something that could not be read is not known to be gone.
        return plan(found, known, unseen=[problem.path for problem in problems])

    def _carry_out(self, work: Plan, known: dict[str, KnownFile], *, root: Path) -> None:
        self._record_unchanged(work.unchanged)
        for path in work.delete:
            self._stop_if_interrupted()
            self._catalog.documents.delete(self._index, path, job_id=self._job.id)
            self._tools.wake_index()
        self._in_parallel(
            (lambda file=file: self._ingest(file, known.get(file.path), root))  # type: ignore[misc]
            for file in (*work.add, *work.update)
        )

    def _record_unchanged(self, files: Iterable[KnownFile]) -> None:
        """Note files that need no work; one that could not be read before still cannot."""
        results = [
            FileResult(
                file.path,
                _outcome_of(file.problem) if file.problem else "unchanged",
                problem=file.problem,
            )
            for file in files
        ]
        # A resumed job keeps what it noted before: `added` must not become `unchanged`.
        self._catalog.jobs.record_files(self._job.id, results, only_if_absent=True)

    def _stop_if_interrupted(self) -> None:
        if self._tools.is_interrupted():
            raise JobInterruptedError

    def _in_parallel(self, tasks: Iterator[Callable[[], None]]) -> None:
        """Run tasks a few at a time, never holding more than those; the first error ends it."""
        limit = self._tools.files_at_once
        running: set[Future[None]] = set()
        with ThreadPoolExecutor(limit, thread_name_prefix=f"ingest-{self._index.name}") as pool:
            for task in tasks:
                self._stop_if_interrupted()
                running.add(pool.submit(task))
                if len(running) >= limit:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
            for future in running:
                future.result()

    # -- one file -----------------------------------------------------------------------------

    def _ingest(self, file: FoundFile, known: KnownFile | None, root: Path) -> None:
        if self._tools.is_interrupted():
            return
        try:
            if known and not known.problem and sha256_file(Path(file.path)) == known.sha256:
                self._catalog.documents.touch(
                    self._index, file.path, mtime_ns=file.mtime_ns, size_bytes=file.size_bytes
                )
                self._record_unchanged([known])
                return
            extraction = self._tools.extractors.extract(Path(file.path), root)
            document = self._document(file, extraction)
        except ExtractionError as error:
            self._give_up(file, _problem(file.path, error))
            return
        except CatalogError:
            raise
        except Exception as error:  # per-file ingest: one file's failure is one row
            logger.exception("ingesting %s", file.path)
            self._give_up(file, _unexpected(file.path, error))
            return
        self._catalog.documents.commit(
            self._index,
            document,
            job_id=self._job.id,
            outcome="updated" if known else "added",
        )
        self._tools.wake_index()

    def _give_up(self, file: FoundFile, problem: FileProblem) -> None:
        # What may succeed on the next run keeps its former version until then.
        self._catalog.documents.commit_problem(
            self._index,
            KnownFile(file.path, file.size_bytes, file.mtime_ns, sha256="", problem=problem),
            job_id=self._job.id,
            outcome=_outcome_of(problem),
            keep_previous=problem.is_retryable,
        )
        self._tools.wake_index()

    def _document(self, file: FoundFile, extraction: Extraction) -> NewDocument:
        chunks = chunk(
            extraction.text,
            extraction.kind,
            extraction.pages,
            self._encoder.offsets,
            max_tokens=self._budget.chunk,
        )
        if not chunks:
            raise ExtractionError(
                "no_text", "The file holds no text.", stage="chunk", hint="Nothing to index."
            )
        texts = self._embedded_texts(extraction.title, chunks)
        hashes = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        return NewDocument(
            path=file.path,
            size_bytes=extraction.size_bytes,
            mtime_ns=file.mtime_ns,
            sha256=extraction.sha256,
            title=extraction.title,
            kind=extraction.kind,
            chunks=tuple(chunks),
            text_hashes=tuple(hashes),
            vectors=self._vectors(texts, hashes),
        )

    def _embedded_texts(self, title: str, chunks: Sequence[Chunk]) -> list[str]:
        """Put prompt, title and headings in front of each chunk, within the model's length."""
        prefixes = list({part.heading: prefix(title, part.heading) for part in chunks}.items())
        offsets = self._encoder.offsets([text for _, text in prefixes])
        fitted = {
            heading: text[: spans[self._budget.prefix, 0]] + "\n"
            if len(spans) > self._budget.prefix
            else text
            for (heading, text), spans in zip(prefixes, offsets, strict=True)
        }
        prompt = self._encoder.spec.document_prompt
        return [prompt + fitted[part.heading] + part.text for part in chunks]

    def _vectors(self, texts: Sequence[str], hashes: Sequence[str]) -> Vectors:
        """Return a vector for each text, computing only those that the catalog lacks."""
        by_hash = self._catalog.chunks.known_vectors(self._index.artefact, list(hashes))
        missing = {key: text for key, text in zip(hashes, texts, strict=True) if key not in by_hash}
        if missing:
            computed = self._encoder.encode(list(missing.values()))
            by_hash |= dict(zip(missing, computed, strict=True))
            self._catalog.jobs.add_chunks_embedded(self._job.id, len(missing))
        return np.stack([by_hash[key] for key in hashes])


def _outcome_of(problem: FileProblem) -> Outcome:
    """Nothing to index is `skipped`; something wrong with the file is `failed`."""
    return "skipped" if problem.code in SKIPPED_CODES else "failed"


SKIPPED_CODES = frozenset({"empty_file", "no_text", "unsupported"})


def _problem(path: str, error: ExtractionError) -> FileProblem:
    return FileProblem(path, error.code, error.stage, error.message, error.hint, error.is_retryable)


def _unexpected(path: str, error: Exception) -> FileProblem:
    message = error.message if isinstance(error, EmbedserveError) else type(error).__name__
    return FileProblem(
        path,
        "internal_error",
        "ingest",
        f"Unexpected failure: {message}",
        hint="The server's log has the details; the next run tries again.",
        is_retryable=True,
    )


def _missing_source(path: str) -> FileProblem:
    return FileProblem(
        path,
        "missing_source",
        "scan",
        "This source does not exist; its documents are kept as they are.",
        hint="Mount or restore it, or take it out of the definition.",
        is_retryable=True,
    )
