"""Indexes as users see them: created, described, counted, deleted."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from embedserve.engine.encoder import Encoder
from embedserve.errors import ConflictError, EmbedserveError, IndexNotFoundError, VectorStoreError
from embedserve.services.definitions import IndexDefinition, check_index_name
from embedserve.services.encoders import Encoders
from embedserve.services.index_worker import IndexWorker
from embedserve.services.origins import VectorOrigins
from embedserve.services.recall_sample import Recall, RecallSampler
from embedserve.services.roots import AllowedRoots
from embedserve.services.token_budget import chunk_budget
from embedserve.store.catalog import Catalog
from embedserve.store.model_changes import ModelChange
from embedserve.store.upload_files import UploadFiles
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


@dataclass(frozen=True)
class IndexTools:
    """What indexes are checked against and kept in step with."""

    index_worker: IndexWorker
    roots: AllowedRoots
    uploads: UploadFiles
    notices: Mapping[str, str]
    """By index, what a user has to know of its watch."""
    recall: RecallSampler
    default_model: str


class IndexService:
    """Keep indexes in step with their definitions."""

    def __init__(
        self,
        catalog: Catalog,
        vector_index: VectorIndex,
        encoders: Encoders,
        tools: IndexTools,
    ) -> None:
        self._catalog = catalog
        self._vector_index = vector_index
        self._encoders = encoders
        self._tools = tools
        self._origins = VectorOrigins(catalog, encoders)
        self.on_job: Callable[[], None] = lambda: None
        """Called when a job was queued here; set by whoever runs jobs."""
        # Definition files that are not in effect, tried again whenever their index is asked for:
        # a model that was missing at start may have been pulled since.
        self._waiting: dict[str, IndexDefinition] = {}
        self._problems: dict[str, str] = {}

    @property
    def problems(self) -> dict[str, str]:
        """Return why definition files are not in effect, by index."""
        return dict(self._problems)

    def names(self) -> list[str]:
        """List the indexes by name."""
        self._apply_waiting(list(self._waiting))
        return sorted(index.name for index in self._catalog.indexes.all())

    def find(self, name: str) -> Index:
        """Return an index.

        Raises IndexNotFoundError, or ConflictError when it is defined but cannot be built.
        """
        self._apply_waiting([name] if name in self._waiting else [])
        try:
            return self._catalog.indexes.get(name)
        except IndexNotFoundError:
            if name in self._problems:
                raise ConflictError(
                    f"Index `{name}` is defined but not in effect: {self._problems[name]}"
                ) from None
            raise

    def describe(self, name: str) -> IndexReport:
        """Return definition and counts of one index; raises as `find` does."""
        index = self.find(name)
        try:
            reachable = self._vector_index.count(index.key)
        except VectorStoreError:
            reachable = None
        change = self._catalog.model_changes.get(index.id)
        return IndexReport(
            index=index,
            definition=IndexDefinition.model_validate_json(index.definition),
            counts=self._catalog.indexes.counts(index.id),
            reachable=reachable,
            problem=self._problems.get(name) or self._tools.index_worker.problems().get(index.key),
            warnings=(
                *self._origins.warnings(index),
                *self._notices(name),
                *lexical_warnings(self._catalog, index),
            ),
            change=change,
            recall=self._tools.recall.recall(index.id),
            ready=self._catalog.model_changes.count_ready(index.id) if change else 0,
        )

    def _notices(self, name: str) -> list[str]:
        notice = self._tools.notices.get(name)
        return [notice] if notice else []

    def check_vectors(self, index: Index, encoder: Encoder) -> list[str]:
        """Return what a user has to know of vectors from another machine, for most nothing.

        Raises ConflictError when the index's vectors cannot be compared with the encoder's.
        """
        check_same_artefact(index, encoder)
        return self._origins.check(index, encoder)

    def put(self, name: str, definition: IndexDefinition) -> bool:
        """Create the index or replace its definition; tell whether it was created.

        Another model takes effect when a job has embedded all chunks with it, at once where there
        are none and no job may bring some. Raises
        InvalidNameError, DefinitionError, PathNotAllowedError for a source outside the allowed
        roots, ModelNotFoundError, and ConflictError for another chunking of what is stored.
        """
        check_index_name(name)
        sources = tuple(
            source.model_copy(update={"path": str(self._tools.roots.allow(source.path))})
            if source.path
            else source
            for source in definition.sources
        )
        definition = definition.model_copy(update={"sources": sources})
        model = definition.model or self._tools.default_model
        encoder = self._encoders.get(model)
        chunk_budget(encoder, definition)  # refuses chunks that the model cannot take
        existing = self._existing(name)
        if existing is None:
            is_done = self._create(name, definition, model, encoder)
        elif existing.artefact == encoder.spec.artefact:
            self._refuse_other_chunks(existing, definition)
            is_done = self._catalog.model_changes.stay(existing, definition.model_dump_json())
        else:
            is_done = self._change_model(existing, definition, encoder)
        if not is_done:
            return self.put(name, definition)  # another request was quicker: change its index
        self._waiting.pop(name, None)
        self._problems.pop(name, None)
        return existing is None

    def delete(self, name: str) -> None:
        """Remove an index with its documents; raise IndexNotFoundError.

        What was uploaded goes with it. Vectors stay by the hash of their text, so that building
        it again embeds nothing.
        """
        deleted = self._catalog.indexes.delete(name)
        self._tools.uploads.remove_index(deleted.id)
        self._problems.pop(name, None)
        self._tools.index_worker.hurry()

    def apply(self, definitions: Mapping[str, IndexDefinition]) -> None:
        """Create or change indexes as their definition files say, at start.

        One that cannot be applied keeps its former state, and its problem is told.
        """
        self._waiting = dict(definitions)
        self._apply_waiting(list(definitions))

    def _apply_waiting(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                self.put(name, self._waiting[name])
            except KeyError:  # another request has just applied it
                continue
            except EmbedserveError as error:
                if self._problems.get(name) != error.message:
                    logger.warning("index %s: its definition is not in effect: %s", name, error)
                self._problems[name] = error.message

    def _create(self, name: str, definition: IndexDefinition, model: str, encoder: Encoder) -> bool:
        """Create the index; tell whether the name was still free."""
        self._origins.begin(encoder)
        try:
            self._catalog.indexes.create(
                name,
                definition.model_dump_json(),
                model=model,
                artefact=encoder.spec.artefact,
                dimensions=encoder.spec.dimensions,
            )
        except ConflictError:
            return False
        return True

    def _existing(self, name: str) -> Index | None:
        try:
            return self._catalog.indexes.get(name)
        except IndexNotFoundError:
            return None

    def _change_model(self, existing: Index, definition: IndexDefinition, encoder: Encoder) -> bool:
        """Take another model: at once when there are no chunks yet, else by a job.

        False when the index is gone.
        """
        self._refuse_other_chunks(existing, definition)
        self._origins.begin(encoder)
        model = definition.model or self._tools.default_model
        spec = encoder.spec
        change = ModelChange(
            existing.id, definition.model_dump_json(), model, spec.artefact, spec.dimensions
        )
        if self._catalog.model_changes.become_at_once(existing, change):
            self._tools.index_worker.hurry()
            return True
        if not self._catalog.model_changes.ask(existing, change):
            return False
        logger.info("index %s: it is embedded anew with %s", existing.name, model)
        self.on_job()
        return True

    def _refuse_other_chunks(self, existing: Index, definition: IndexDefinition) -> None:
        stored = IndexDefinition.model_validate_json(existing.definition)
        is_filled = self._catalog.indexes.counts(existing.id).chunks > 0
        if is_filled and stored.chunking != definition.chunking:
            raise ConflictError(
                f"Index `{existing.name}` holds chunks cut with another `chunking`; change it "
                f"after `embedserve index delete {existing.name}`, or choose a new name."
            )


def lexical_warnings(catalog: Catalog, index: Index) -> list[str]:
    """Return what a user of full-text search has to know: that chunks are not in it yet."""
    waiting = catalog.lexical.pending(index.id)
    if not waiting:
        return []
    return [f"{waiting} chunks are not in the full text yet; only vectors find them."]


def check_same_artefact(index: Index, encoder: Encoder) -> None:
    """Raise ConflictError when the installed model is not the one that filled the index."""
    if encoder.spec.artefact != index.artefact:
        spec = encoder.spec
        raise ConflictError(
            f"Index `{index.name}` holds vectors of another build of `{index.model}` "
            f"({index.artefact[:12]}) than the one that is installed now (recipe {spec.recipe} on "
            f"{spec.engine}, {spec.artefact[:12]}); the two are never mixed. Pull the former one "
            "again with its `--recipe` and `--engine`, or have the index embedded anew: "
            f"`embedserve index reembed {index.name}`."
        )
