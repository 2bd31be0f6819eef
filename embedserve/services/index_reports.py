"""What is told of one index."""

from dataclasses import dataclass

from embedserve.services.definitions import IndexDefinition
from embedserve.services.recall_sample import Recall
from embedserve.services.viewing import Sight
from embedserve.store.catalog import Catalog
from embedserve.store.model_changes import ModelChange
from embedserve.types import Index, IndexCounts


@dataclass(frozen=True)
class IndexReport:
    """One index with its definition and counts."""

    index: Index
    definition: IndexDefinition
    counts: IndexCounts
    reachable: int | None
    """Texts that the vector index holds a vector of; None while it does not answer."""
    problem: str | None
    """What keeps its definition file from taking effect, or its vectors from being found."""
    warnings: tuple[str, ...] = ()
    """What a user of its vectors has to know."""
    change: ModelChange | None = None
    """What it becomes when a job has embedded all its chunks with another model."""
    recall: Recall | None = None
    """How well the vector index finds what is nearest; None: no query was compared yet."""
    ready: int = 0
    """Chunks that have their vector of that model."""


def report_of_seen(catalog: Catalog, sight: Sight) -> IndexReport:
    """Return what a user may know who sees some documents: of the others not even how many."""
    described = sight.definition.model_copy(update={"sources": (), "access": None, "metadata": {}})
    counts = catalog.uploads.counts(sight.index.id, sight.visible)
    told = ("The index has access rules: the counts are of the documents that you may see.",)
    return IndexReport(sight.index, described, counts, None, None, warnings=told)
