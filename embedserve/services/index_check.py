"""Is an index whole? The catalog's file, its vectors, and what the vector index holds of them.

Works in steps that each hold one page of rows at most (and the index's ids, 8 bytes each), while
everything else goes on.
"""

import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from embedserve.errors import ConflictError, EmbedserveError, VectorStoreError
from embedserve.services.definitions import definition_of
from embedserve.services.embedded_text import text_hash, texts_of
from embedserve.services.encoders import Encoders
from embedserve.services.index_notes import check_same_artefact
from embedserve.services.index_worker import IndexWorker
from embedserve.services.indexes import IndexService
from embedserve.services.token_budget import chunk_budget
from embedserve.store.catalog import Catalog
from embedserve.store.integrity import EmbeddedChunk
from embedserve.store.lexical_care import LexicalHealth
from embedserve.store.repair import IndexHealth, check, repair
from embedserve.store.vector_index import VectorIndex
from embedserve.types import Index, IndexCounts

APPLY_TIMEOUT_S = 600
TELL_EVERY_S = 2.0
"""How often a check that goes on says so, so that nobody takes the connection for dead."""
SHOWN = 5
ROUNDS = 2
"""Looks with a repair: what the vector index lacks shows when the catalog's vectors are sound."""
MEND = 64  # chunks that are embedded again at once

T = TypeVar("T")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong."""

    code: str
    count: int
    message: str
    hint: str = ""
    """What to do where no repair helps."""


@dataclass(frozen=True)
class Progress:
    """What a check is at."""

    step: str
    done: int = 0


@dataclass(frozen=True)
class CheckReport:
    """What was found, and what is left of it after a repair."""

    index: str
    counts: IndexCounts
    stored: int | None
    """Vectors that the vector index holds; None: it does not answer."""
    sampled: int
    """Chunks whose stored vector was compared and that were searched by it."""
    unused_vectors: int
    """Vectors that no chunk has, of every index; no fault, `embedserve vacuum` deletes them."""
    faults: tuple[Fault, ...] = ()
    repaired: tuple[Fault, ...] = ()
    """Faults that were there before the repair and are gone."""


@dataclass
class _Findings:
    """What one look at everything gave."""

    index: Index
    """As it was then."""
    file_problems: list[str]
    bad_ids: NDArray[np.int64]
    lexical: LexicalHealth | None = None
    health: IndexHealth | None = None
    down: str = ""
    faults: list[Fault] = field(default_factory=list)


class IndexCheck:
    """Compare, and repair where that is asked for."""

    def __init__(
        self,
        catalog: Catalog,
        vector_index: VectorIndex,
        indexes: IndexService,
        index_worker: IndexWorker,
        encoders: Encoders,
    ) -> None:
        self._catalog = catalog
        self._vector_index = vector_index
        self._indexes = indexes
        self._worker = index_worker
        self._encoders = encoders

    def run(self, name: str, *, repairs: bool) -> Iterator[Progress | CheckReport]:
        """Give what is done, step by step, and the report at the end.

        Raises IndexNotFoundError before the first step.
        """
        return self._steps(self._indexes.find_to_change(name), repairs=repairs)

    def _steps(self, index: Index, *, repairs: bool) -> Iterator[Progress | CheckReport]:
        before = found = yield from self._look(index.name)
        mend_problem = ""
        for _ in range(ROUNDS if repairs else 0):
            if not found.faults:
                break
            mend_problem = yield from self._mend(found)
            if found.lexical and not found.lexical.is_sound:
                self._catalog.lexical.mend(found.index.id, found.lexical)
            if found.health is not None:
                yield from self._repair(found.index, found.health)
            found = yield from self._look(index.name)
        found.faults = [
            replace(fault, hint=mend_problem) if fault.code == "bad_vectors" else fault
            for fault in found.faults
        ]
        left = {fault.code for fault in found.faults}
        gone = tuple(fault for fault in before.faults if fault.code not in left)
        yield self._report(found, gone)

    def _report(self, found: _Findings, repaired: tuple[Fault, ...]) -> CheckReport:
        return CheckReport(
            found.index.name,
            self._catalog.indexes.counts(found.index.id),
            found.health.stored if found.health else None,
            found.health.sampled if found.health else 0,
            self._catalog.integrity.count_unused_vectors(),
            tuple(found.faults),
            repaired,
        )

    # -- looking ------------------------------------------------------------------------------

    def _look(self, name: str) -> Generator[Progress, None, _Findings]:
        """Look at everything, and once more while the index takes another model meanwhile."""
        yield Progress("reading the catalog's file")
        file_problems = self._catalog.integrity.file_problems()
        while True:
            index = self._indexes.find_to_change(name)
            found = _Findings(index, file_problems, np.empty(0, dtype=np.int64))
            yield from self._look_at(index, found)
            if _is_same(index, self._indexes.find_to_change(name)):
                found.faults = list(_faults(found))
                return found

    def _look_at(self, index: Index, found: _Findings) -> Iterator[Progress]:
        read = 0
        pages = [found.bad_ids]
        for page in self._catalog.integrity.bad_vectors(index):
            pages.append(page.bad)
            read += page.read
            yield Progress("reading vectors", read)
        found.bad_ids = np.concatenate(pages)
        yield Progress("reading the full text")
        found.lexical = self._catalog.lexical.look(index.id)
        # Vectors that are not sound cannot be compared with anything.
        if not len(found.bad_ids):
            yield from self._compare(index, found)

    def _compare(self, index: Index, found: _Findings) -> Iterator[Progress]:
        def compared() -> IndexHealth:
            found.index = self._catalog.indexes.get(index.name)
            return check(self._catalog, self._vector_index, found.index)

        try:
            found.health = yield from self._ask(compared, "comparing the vector index")
        except VectorStoreError as error:
            found.down = error.message

    def _ask(self, question: Callable[[], T], step: str) -> Generator[Progress, None, T]:
        """Have the worker's thread answer: between two batches nothing moves."""
        answer = self._worker.ask(question)
        while True:
            yield Progress(step)
            try:
                return answer.result(TELL_EVERY_S)
            except NotYetError:
                continue

    # -- mending ------------------------------------------------------------------------------

    def _mend(self, found: _Findings) -> Generator[Progress, None, str]:
        """Embed again, from the catalog's texts, what has no sound vector; say what prevents it."""
        ids = found.bad_ids.tolist()
        try:
            for start in range(0, len(ids), MEND):
                self._embed_again(found.index, ids[start : start + MEND])
                yield Progress("embedding again", min(start + MEND, len(ids)))
        except EmbedserveError as error:
            return error.message
        return ""

    def _embed_again(self, index: Index, ids: list[int]) -> None:
        encoder = self._encoders.get(index.model)
        check_same_artefact(index, encoder)
        definition = definition_of(index)
        budget = chunk_budget(encoder, definition)
        chunks = self._catalog.integrity.embedded_chunks(index.id, ids)
        wanted = {}
        other: EmbeddedChunk | None = None
        for chunk, text in zip(chunks, texts_of(encoder, budget, chunks), strict=True):
            if text_hash(text) == chunk.text_hash:
                wanted[chunk.text_hash] = text
            else:
                other = other or chunk
        vectors = dict(zip(wanted, encoder.encode(list(wanted.values())), strict=True))
        self._catalog.integrity.replace_vectors(index, vectors)
        if other:
            raise ConflictError(
                f"Chunk {other.id} of index `{index.name}` was embedded with other words "
                "before it than this program puts there. Delete the index and ingest its "
                "documents again."
            )

    def _repair(self, index: Index, health: IndexHealth) -> Iterator[Progress]:
        """Have the worker put right what differs, and wait until it has."""
        step = "repairing the vector index"

        def repaired() -> int:
            present = self._catalog.indexes.get(index.name)
            # What was found is of another generation or model otherwise; the next look tells.
            if not _is_same(index, present) or present.key != index.key:
                return 0
            return repair(self._catalog, self._vector_index, present, health)

        yield from self._ask(repaired, step)
        deadline = time.monotonic() + APPLY_TIMEOUT_S
        while not self._worker.wait_until_applied(index.id, TELL_EVERY_S):
            if not self._worker.is_alive or time.monotonic() > deadline:
                return  # the second look says what is left
            yield Progress(step)


def _is_same(one: Index, other: Index) -> bool:
    return (one.id, one.artefact) == (other.id, other.artefact)


def _faults(found: _Findings) -> Iterator[Fault]:
    if found.file_problems:
        yield Fault(
            "catalog_file",
            len(found.file_problems),
            "SQLite finds the catalog's file damaged: " + "; ".join(found.file_problems[:SHOWN]),
            "Restore the catalog from a backup (docs/operations.md).",
        )
    if len(found.bad_ids):
        yield _fault("bad_vectors", found.bad_ids, "chunks have no sound vector in the catalog")
    if found.lexical:
        yield from _lexical_faults(found.lexical)
    if found.down:
        yield Fault("vector_index_down", 1, found.down, "Start it, then check again.")
    if found.health:
        yield from _faults_of(found.health)


def _faults_of(health: IndexHealth) -> Iterator[Fault]:
    if health.is_unreadable:
        yield Fault("unreadable", 1, "The vector index answers, but not about this index.")
    rows = (
        ("missing", health.missing, "chunks are missing in the vector index"),
        ("extra", health.extra, "ids in the vector index belong to no chunk"),
        ("differing", health.differing, "sampled vectors are not those of the catalog"),
    )
    for code, ids, words in rows:
        if len(ids):
            yield _fault(code, ids, words)
    if health.is_damaged and len(health.lost):
        yield _fault("lost", health.lost, "sampled chunks do not find themselves by search")


def _lexical_faults(health: LexicalHealth) -> Iterator[Fault]:
    if health.damaged:
        words = "; ".join(health.damaged[:SHOWN])
        yield Fault("text_damaged", len(health.damaged), f"Full text cannot be read: {words}.")
    if len(health.missing):
        yield _fault("text_missing", health.missing, "chunks are missing in the full text")
    if len(health.extra):
        yield _fault("text_extra", health.extra, "chunks of the full text are no more")


def _fault(code: str, ids: NDArray[np.int64], words: str) -> Fault:
    shown = ", ".join(str(id_) for id_ in ids[:SHOWN].tolist())
    return Fault(code, len(ids), f"{len(ids)} {words} (chunk ids {shown}).")
