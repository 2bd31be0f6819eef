"""One ingestion job from scan to last commit. Everything it does, it can do again.

Files pass through scan -> plan -> extract -> chunk -> embed -> one catalog transaction each, a
few files at a time. A file that fails is a row with its reason; the others go on.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from embedserve.engine.encoder import Encoder
from embedserve.errors import (
    CatalogError,
    ExtractionError,
    OverloadedError,
)
from embedserve.ingest.chunk import chunk
from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.scan import ScanRules, plan, scan
from embedserve.services.embedded_text import embedded_texts, text_hash
from embedserve.services.file_problems import (
    missing_source,
    outcome_of,
    problem_of,
    too_many_files,
    unexpected,
)
from embedserve.services.found import Found
from embedserve.services.kept_files import read_kept
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
    Provenance,
    Vectors,
)

logger = logging.getLogger(__name__)


class JobInterruptedError(Exception):
    """The job was cancelled, or the server is stopping."""


@dataclass(frozen=True)
class Target:
    """A folder or file to walk, under its rules, and the part of it that a job is about."""

    root: Path
    rules: ScanRules
    below: Path
    """`root` itself, or a path inside it."""


@dataclass(frozen=True)
class Tools:
    """What a run works with."""

    catalog: Catalog
    extractors: ExtractorPool
    encoder: Encoder
    wake_index: Callable[[], None]
    is_interrupted: Callable[[], bool]
    files_at_once: int
    max_files: int
    """That the targets may hold together."""


class IngestRun:
    """Bring one index in step with one folder or file."""

    def __init__(self, tools: Tools, job: Job, index: Index, *, budget: TokenBudget) -> None:
        self._tools = tools
        self._catalog = tools.catalog
        self._encoder = tools.encoder
        self._job = job
        self._index = index
        self._budget = budget

    def run(self, targets: Sequence[Target]) -> None:
        """Ingest every target; raise JobInterruptedError when told to stop."""
        known = self._known(targets)
        found, problems = self._found(targets)
        results = [
            FileResult(problem.path, outcome_of(problem), problem=problem) for problem in problems
        ]
        self._catalog.jobs.record_files(self._job.id, results)
        # What lies below something that could not be read is not known to be gone.
        files = [item.file for item in found.values()]
        work = plan(files, known, unseen=[problem.path for problem in problems])
        sizes = map(len, (work.add, work.update, work.delete, work.unchanged, results))
        # A resumed job has deleted some already; they are no longer in the plan.
        total = sum(sizes) + self._job.counts.get("deleted", 0)
        self._catalog.jobs.set_files_total(self._job.id, total)
        self._carry_out(work, known, found)

    def ingest_kept(self, items: Sequence[Found]) -> None:
        """Ingest files that are kept for the index, new ones and new versions."""
        if not items:
            return
        known = self._catalog.documents.known_at(self._index.id, [item.file.path for item in items])
        self.carry_out_each(
            [partial(self.ingest, item, known.get(item.file.path)) for item in items]
        )

    def carry_out_each(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Do one task for each of so many files, beside what the job has done already."""
        before = self._catalog.jobs.get(self._job.id)
        done = before.files_total or sum(before.counts.values())
        self._catalog.jobs.set_files_total(self._job.id, done + len(tasks))
        self._in_parallel(iter(tasks))

    def _known(self, targets: Sequence[Target]) -> dict[str, KnownFile]:
        known: dict[str, KnownFile] = {}
        for target in targets:
            known |= self._catalog.documents.known_files(self._index.id, str(target.below))
        return known

    def _found(self, targets: Sequence[Target]) -> tuple[dict[str, Found], list[FileProblem]]:
        """Scan every target; a file that several of them hold is taken once, for the first."""
        found: dict[str, Found] = {}
        problems: list[FileProblem] = []
        for target in targets:
            self._stop_if_interrupted()
            if not target.root.exists():
                # It may be a disk that is not mounted: nothing is deleted for it.
                problems.append(missing_source(str(target.root)))
                continue
            for file in scan(target.root, target.rules, problems.append):
                if len(found) >= self._tools.max_files:
                    problems.append(too_many_files(str(target.below), len(found)))
                    break
                if Path(file.path).is_relative_to(target.below):
                    found.setdefault(file.path, Found(file, target.root))
        return found, problems

    def _carry_out(
        self, work: Plan, known: Mapping[str, KnownFile], found: Mapping[str, Found]
    ) -> None:
        self.record_unchanged(work.unchanged)
        for path in work.delete:
            self._stop_if_interrupted()
            self._catalog.documents.delete(self._index, path, job_id=self._job.id)
            self._tools.wake_index()
        self._in_parallel(
            partial(self.ingest, found[file.path], known.get(file.path))
            for file in (*work.add, *work.update)
        )

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

    def ingest(self, found: Found, known: KnownFile | None) -> None:
        """Read, cut, embed and commit one file; what is wrong with it becomes its row."""
        if self._tools.is_interrupted():
            return
        file = found.file
        try:
            extraction = self._extraction(found)
            if self._is_same(found, known, extraction):
                return
            document = self._document(found, extraction)
        except ExtractionError as error:
            if error.code != "shutting_down":  # then the next start does it again
                self.give_up(file, problem_of(file.path, error), found.provenance)
            return
        except (CatalogError, OverloadedError):
            raise  # nothing is wrong with the file
        except Exception as error:  # per-file ingest: one file's failure is one row
            logger.exception("ingesting %s", file.path)
            self.give_up(file, unexpected(file.path, error), found.provenance)
            return
        self._catalog.documents.commit(
            self._index,
            document,
            job_id=self._job.id,
            outcome="updated" if known else "added",
        )
        self._tools.wake_index()

    def _extraction(self, found: Found) -> Extraction:
        if found.place is None:
            return self._tools.extractors.extract(Path(found.file.path), found.root)
        return read_kept(self._tools.extractors, found.place, found.file.path, found.title)

    def _is_same(self, found: Found, known: KnownFile | None, extraction: Extraction) -> bool:
        """Tell whether a file's bytes are known already, and note its new times."""
        is_known = known and not known.problem and extraction.sha256 == known.sha256
        if known is None or not is_known or found.provenance.source == "upload":
            return False
        self._catalog.documents.touch(self._index, found.file, found.provenance)
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

    def _document(self, found: Found, extraction: Extraction) -> NewDocument:
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
        texts = embedded_texts(self._encoder, self._budget, extraction.title, chunks)
        hashes = [text_hash(text) for text in texts]
        return NewDocument(
            path=found.file.path,
            size_bytes=extraction.size_bytes,
            mtime_ns=found.file.mtime_ns,
            sha256=extraction.sha256,
            title=extraction.title,
            kind=extraction.kind,
            chunks=tuple(chunks),
            text_hashes=tuple(hashes),
            vectors=self._vectors(texts, hashes),
            warnings=extraction.warnings,
            provenance=found.provenance,
        )

    def _vectors(self, texts: Sequence[str], hashes: Sequence[str]) -> Vectors:
        """Return a vector for each text, computing only those that the catalog lacks."""
        by_hash = self._catalog.chunks.known_vectors(self._index.artefact, list(hashes))
        missing = {key: text for key, text in zip(hashes, texts, strict=True) if key not in by_hash}
        if missing:
            computed = self._encoder.encode(list(missing.values()))
            by_hash |= dict(zip(missing, computed, strict=True))
            self._catalog.jobs.add_chunks_embedded(self._job.id, len(missing))
        return np.stack([by_hash[key] for key in hashes])
