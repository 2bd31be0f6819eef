"""A fresh generation of the vector index for an index, and room given back to the system."""

from collections.abc import Iterator
from dataclasses import dataclass

from embedserve.errors import OverloadedError, VectorStoreError
from embedserve.services.index_worker import IndexWorker
from embedserve.services.indexes import IndexService
from embedserve.store.catalog import Catalog
from embedserve.types import Index

TELL_EVERY_S = 1.0
LEAST_GONE = 0.05
"""Share of the chunks of a full-text segment that are gone when a vacuum writes it anew."""


@dataclass(frozen=True)
class RebuildProgress:
    """How far a new generation is."""

    done: int
    total: int
    is_serving: bool = False


@dataclass(frozen=True)
class VacuumProgress:
    """What a vacuum has done so far."""

    vectors_deleted: int
    bytes_before: int
    bytes_after: int
    is_done: bool = False


class RebuildService:
    """Start a rebuild and follow it; it goes on when nobody does, and after a restart."""

    def __init__(self, catalog: Catalog, indexes: IndexService, index_worker: IndexWorker) -> None:
        self._catalog = catalog
        self._indexes = indexes
        self._worker = index_worker

    def rebuild(self, name: str) -> Iterator[RebuildProgress]:
        """Begin a new generation and give its progress until it serves.

        Raises IndexNotFoundError before the first step, VectorStoreError while it cannot go on.
        """
        index = self._indexes.find_to_change(name)
        self._catalog.generations.begin(index)
        self._worker.hurry()
        return self._follow(index)

    def vacuum(self) -> Iterator[VacuumProgress]:
        """Delete the vectors that no chunk has and the full text of chunks that are gone, in steps.

        Free pages are given back.
        """
        catalog = self._catalog.upkeep
        before = catalog.size_bytes()
        deleted = 0
        for count in catalog.delete_unused_vectors():
            deleted += count
            yield VacuumProgress(deleted, before, catalog.size_bytes())
        for index in self._catalog.indexes.all():
            self._catalog.lexical.tidy(index.id, least_gone=LEAST_GONE)
            yield VacuumProgress(deleted, before, catalog.size_bytes())
        while catalog.release_pages():
            yield VacuumProgress(deleted, before, catalog.size_bytes())
        catalog.fold_log()
        yield VacuumProgress(deleted, before, catalog.size_bytes(), is_done=True)

    def _follow(self, index: Index) -> Iterator[RebuildProgress]:
        seen = 0
        while True:
            present = self._indexes.find_to_change(index.name)
            total = self._catalog.chunks.count(index.id)
            if present.key != index.key:
                yield RebuildProgress(total, total, is_serving=True)
                return
            building = self._catalog.generations.building(index.id)
            done = self._catalog.chunks.count(index.id, up_to=building.filled_to) if building else 0
            yield RebuildProgress(done, total)
            if problem := self._worker.problems().get(index.key):
                raise VectorStoreError(f"{problem} The rebuild goes on when that is over.")
            if self._worker.is_stopping:
                raise OverloadedError(
                    "The server is stopping. The rebuild goes on at its next start."
                )
            seen = self._worker.wait_for_batch(seen, timeout_s=TELL_EVERY_S)
