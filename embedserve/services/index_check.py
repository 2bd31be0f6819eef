"""Is an index whole? The catalog's file, its vectors, and what the vector index holds of them.

Works in steps that each hold one page of rows at most (and the index's ids, 8 bytes each), while
everything else goes on.
"""

import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from embedserve.errors import ConflictError, EmbedserveError, VectorStoreError
from embedserve.services.definitions import IndexDefinition
from embedserve.services.embedded_text import embedded_texts, text_hash
from embedserve.services.encoders import Encoders
from embedserve.services.index_worker import IndexWorker
from embedserve.services.indexes import IndexService, check_same_artefact
from embedserve.services.token_budget import chunk_budget
from embedserve.store.catalog import Catalog
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

    file_problems: list[str]
    bad_ids: NDArray[np.int64]
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
        return self._steps(self._indexes.find(name), repairs=repairs)

    def _steps(self, index: Index, *, repairs: bool) -> Iterator[Progress | CheckReport]:
        before = found = yield from self._look(index)
        mend_problem = ""
        for _ in range(ROUNDS if repairs else 0):
            if not found.faults:
                break
            mend_problem = yield from self._mend(index, found)
            if found.health is not None:
                yield from self._repair(index, found.health)
            found = yield from self._look(self._indexes.find(index.name))
        found.faults = [
            replace(fault, hint=mend_problem) if fault.code == "bad_vectors" else fault
            for fault in found.faults
        ]
        left = {fault.code for fault in found.faults}
        gone = tuple(fault for fault in before.faults if fault.code not in left)
        yield self._report(index, found, gone)

    def _report(self, index: Index, found: _Findings, repaired: tuple[Fault, ...]) -> CheckReport:
        return CheckReport(
            index.name,
            self._catalog.indexes.counts(index.id),
            found.health.stored if found.health else None,
            found.health.sampled if found.health else 0,
            self._catalog.integrity.count_unused_vectors(),
            tuple(found.faults),
            repaired,
        )

    # -- looking ------------------------------------------------------------------------------

    def _look(self, index: Index) -> Generator[Progress, None, _Findings]:
        yield Progress("reading the catalog's file")
        found = _Findings(self._catalog.integrity.file_problems(), np.empty(0, dtype=np.int64))
        read = 0
        pages = [found.bad_ids]
        for page in self._catalog.integrity.bad_vectors(index):
            pages.append(page.bad)
            read += page.read
            yield Progress("reading vectors", read)
        found.bad_ids = np.concatenate(pages)
        # Vectors that are not sound cannot be compared with anything.
        if not len(found.bad_ids):
            yield Progress("comparing the vector index")
            yield from self._ask(index, found)
        found.faults = list(_faults(found))
        return found

    def _ask(self, index: Index, found: _Findings) -> Iterator[Progress]:
        """Compare in the worker's thread: between two batches nothing moves."""
        answer: Future[IndexHealth] = self._worker.ask(
            lambda: check(self._catalog, self._vector_index, self._catalog.indexes.get(index.name))
        )
        while True:
            try:
                found.health = answer.result(TELL_EVERY_S)
                return
            except NotYetError:
                yield Progress("comparing the vector index")
            except VectorStoreError as error:
                found.down = error.message
                return

    # -- mending ------------------------------------------------------------------------------

    def _mend(self, index: Index, found: _Findings) -> Generator[Progress, None, str]:
        """Embed again, from the catalog's texts, what has no sound vector; say what prevents it."""
        ids = found.bad_ids.tolist()
        try:
            for start in range(0, len(ids), MEND):
                self._embed_again(index, ids[start : start + MEND])
                yield Progress("embedding again", min(start + MEND, len(ids)))
        except EmbedserveError as error:
            return error.message
        return ""

    def _embed_again(self, index: Index, ids: list[int]) -> None:
        encoder = self._encoders.get(index.model)
        check_same_artefact(index, encoder)
        definition = IndexDefinition.model_validate_json(index.definition)
        budget = chunk_budget(encoder, definition)
        for chunk in self._catalog.integrity.embedded_chunks(index.id, ids):
            [text] = embedded_texts(encoder, budget, chunk.title, [chunk])
            if text_hash(text) != chunk.text_hash:
                raise ConflictError(
                    f"Chunk {chunk.id} of index `{index.name}` was embedded with other words "
                    "before it than this program puts there. Delete the index and ingest its "
                    "documents again."
                )
            [vector] = encoder.encode([text])
            self._catalog.integrity.replace_vector(index, chunk.text_hash, vector)

    def _repair(self, index: Index, health: IndexHealth) -> Iterator[Progress]:
        """Have the worker put right what differs, and wait until it has."""
        yield Progress("repairing the vector index")
        self._worker.ask(lambda: repair(self._catalog, self._vector_index, index, health)).result()
        deadline = time.monotonic() + APPLY_TIMEOUT_S
        while not self._worker.wait_until_applied(index.id, TELL_EVERY_S):
            if not self._worker.is_alive or time.monotonic() > deadline:
                return  # the second look says what is left
            yield Progress("repairing the vector index")


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


def _fault(code: str, ids: NDArray[np.int64], words: str) -> Fault:
    shown = ", ".join(str(id_) for id_ in ids[:SHOWN].tolist())
    return Fault(code, len(ids), f"{len(ids)} {words} (chunk ids {shown}).")
