"""Whether the vector index holds what the catalog says, and what is done when it does not."""

import logging

from embedserve.store.catalog import Catalog
from embedserve.store.repair import check, repair
from embedserve.store.vector_index import VectorIndex
from embedserve.types import Index

logger = logging.getLogger(__name__)


def put_right(catalog: Catalog, vector_index: VectorIndex, index: Index) -> None:
    """Compare every id and vectors drawn at random, and repair what differs."""
    health = check(catalog, vector_index, index)
    repaired = repair(catalog, vector_index, index, health)
    if repaired:
        logger.warning("index %s: repairing %d entries of the vector index", index.name, repaired)


def compare(catalog: Catalog, vector_index: VectorIndex, index: Index) -> None:
    """Let the vector index load what it holds, and check it when the number of it is wrong."""
    stored = vector_index.count(index.key)
    waits = catalog.changes.has_pending(index.id)
    if waits or stored != catalog.chunks.count_texts(index.id):
        put_right(catalog, vector_index, index)
