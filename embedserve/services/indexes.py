"""Indexes as users see them: created, described, counted, deleted."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from embedserve.errors import ConflictError, EmbedserveError, IndexNotFoundError, VectorStoreError
from embedserve.services.definitions import IndexDefinition, check_index_name
from embedserve.services.encoders import Encoders
from embedserve.services.index_worker import IndexWorker
from embedserve.services.ingestion import chunk_budget
from embedserve.store.catalog import Catalog
from embedserve.store.vector_index import VectorIndex
from embedserve.types import Index, IndexCounts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexReport:
    """One index with its definition and counts."""

    index: Index
    definition: IndexDefinition
    counts: IndexCounts
    reachable: int | None
    """Vectors that the vector index holds; None while it does not answer."""
    problem: str | None
    """What keeps its definition file from taking effect."""


class IndexService:
    """Keep indexes in step with their definitions."""

    def __init__(
        self,
        catalog: Catalog,
        vector_index: VectorIndex,
        encoders: Encoders,
        index_worker: IndexWorker,
        *,
        default_model: str,
    ) -> None:
        self._catalog = catalog
        self._vector_index = vector_index
        self._encoders = encoders
        self._index_worker = index_worker
        self._default_model = default_model
        self._problems: dict[str, str] = {}

    def names(self) -> list[str]:
        """List the indexes by name."""
        return sorted(index.name for index in self._catalog.indexes.all())

    def describe(self, name: str) -> IndexReport:
        """Return definition and counts of one index; raise IndexNotFoundError."""
        index = self._catalog.indexes.get(name)
        try:
            reachable = self._vector_index.count(index.id)
        except VectorStoreError:
            reachable = None
        return IndexReport(
            index=index,
            definition=IndexDefinition.model_validate_json(index.definition),
            counts=self._catalog.indexes.counts(index.id),
            reachable=reachable,
            problem=self._problems.get(name),
        )

    def put(self, name: str, definition: IndexDefinition) -> bool:
        """Create the index or change its definition; tell whether it was created.

        Raises InvalidNameError, DefinitionError, ModelNotFoundError, and ConflictError for a
        change that the stored vectors do not allow.
        """
        check_index_name(name)
        model = definition.model or self._default_model
        encoder = self._encoders.get(model)
        chunk_budget(encoder, definition)  # refuses chunks that the model cannot take
        existing = self._existing(name)
        if existing and existing.artefact != encoder.spec.artefact:
            self._give_up_vectors(existing)
            existing = None
        if existing is None:
            self._catalog.indexes.create(
                name,
                definition.model_dump_json(),
                model=model,
                artefact=encoder.spec.artefact,
                dimensions=encoder.spec.dimensions,
            )
            return True
        self._refuse_other_chunks(existing, definition)
        self._catalog.indexes.set_definition(name, definition.model_dump_json())
        self._problems.pop(name, None)
        return False

    def delete(self, name: str) -> None:
        """Remove an index with its documents, vectors and jobs; raise IndexNotFoundError."""
        index = self._catalog.indexes.delete(name)
        self._index_worker.drop(index.id)

    def apply(self, definitions: Mapping[str, IndexDefinition]) -> None:
        """Create or change indexes as their definition files say, at start.

        One that cannot be applied keeps its former state, and `describe` says why.
        """
        for name, definition in definitions.items():
            try:
                self.put(name, definition)
            except EmbedserveError as error:
                self._problems[name] = error.message
                logger.warning("index %s: its definition is not in effect: %s", name, error)

    @property
    def problems(self) -> dict[str, str]:
        """Definition files that are not in effect, with the reason."""
        return dict(self._problems)

    def _existing(self, name: str) -> Index | None:
        try:
            return self._catalog.indexes.get(name)
        except IndexNotFoundError:
            return None

    def _give_up_vectors(self, existing: Index) -> None:
        """Make room for another model's vectors; refuse while there are any of the former."""
        if self._catalog.indexes.counts(existing.id).chunks:
            raise ConflictError(
                f"Index `{existing.name}` is filled with vectors of `{existing.model}` "
                f"({existing.artefact[:12]}); they cannot be mixed with another model's. Choose a "
                f"new name, or delete it first: `embedserve index delete {existing.name}`."
            )
        self.delete(existing.name)

    def _refuse_other_chunks(self, existing: Index, definition: IndexDefinition) -> None:
        stored = IndexDefinition.model_validate_json(existing.definition)
        is_filled = self._catalog.indexes.counts(existing.id).chunks > 0
        if is_filled and stored.chunking != definition.chunking:
            raise ConflictError(
                f"Index `{existing.name}` holds chunks cut with another `chunking`; change it "
                f"after `embedserve index delete {existing.name}`, or choose a new name."
            )
