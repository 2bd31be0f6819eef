"""Fills a new generation of an index beside the one that serves, and switches.

Only the index worker's thread comes here, so nothing else is applied meanwhile: a chunk is either
read from the catalog by its id, or comes through the log, which goes to both generations.
"""

import logging
from dataclasses import replace

from embedserve.services.row_writer import RowWriter
from embedserve.store.catalog import Catalog
from embedserve.store.generations import Generation
from embedserve.store.repair import check, repair
from embedserve.store.vector_index import VectorIndex
from embedserve.types import Index

logger = logging.getLogger(__name__)


class GenerationBuilder:
    """Advance generations batch by batch; how far they are is written in the catalog."""

    def __init__(
        self, catalog: Catalog, vector_index: VectorIndex, rows: RowWriter, *, batch: int
    ) -> None:
        self._catalog = catalog
        self._vector_index = vector_index
        self._rows = rows
        self._batch = batch

    def advance(self, index: Index, building: Generation) -> bool:
        """Store the next batch of the index's vectors; False when there are no more."""
        page = self._catalog.chunks.vectors_after(index, building.filled_to, limit=self._batch)
        if not len(page.ids):
            return False
        self._rows.store(replace(index, key=building.key), page)
        self._catalog.generations.note_filled(building.key, int(page.ids[-1]))
        return True

    def finish(self, index: Index, building: Generation) -> bool:
        """Compare a filled generation with the catalog and switch to it; tell whether it was done.

        What is missing in it is asked for again, and one that is damaged is begun anew.
        """
        candidate = replace(index, key=building.key)
        health = check(self._catalog, self._vector_index, candidate)
        if health.is_damaged:
            logger.warning("index %s: its new generation is damaged; filling another", index.name)
            self._catalog.generations.give_up(building.key)
            self._catalog.generations.begin(index)
            return False
        repair(self._catalog, self._vector_index, candidate, health)
        # A chunk without a vector, which a check finds, is missing in every generation.
        some = health.missing[: self._batch].tolist()
        if len(health.extra) or len(self._catalog.chunks.vectors_of(index, some).ids):
            return False
        return self._catalog.generations.switch(index, building)
