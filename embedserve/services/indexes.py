"""Indexes as users see them: created, described, counted, deleted."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from embedserve.engine.encoder import Encoder
from embedserve.errors import ConflictError, EmbedserveError, IndexNotFoundError, VectorStoreError
from embedserve.services.definitions import IndexDefinition, check_index_name, definition_of
from embedserve.services.encoders import Encoders
from embedserve.services.index_notes import check_same_artefact, lexical_warnings
from embedserve.services.index_reports import IndexReport, report_of_seen
from embedserve.services.index_worker import IndexWorker
from embedserve.services.origins import VectorOrigins
from embedserve.services.recall_sample import RecallSampler
from embedserve.services.roots import AllowedRoots
from embedserve.services.token_budget import chunk_budget
from embedserve.services.viewing import (
    OWNER,
    Sight,
    acting_as,
    check_may_change,
    check_sees_all,
    is_ruled,
    may_change,
    sight_of,
)
from embedserve.store.catalog import Catalog
from embedserve.store.model_changes import ModelChange
from embedserve.store.upload_files import UploadFiles
from embedserve.store.vector_index import VectorIndex
from embedserve.types import Index

logger = logging.getLogger(__name__)


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
        """Return an index to whoever may see all of it.

        Raises IndexNotFoundError, ForbiddenError where access rules hide some of it, or
        ConflictError when it is defined but cannot be built.
        """
        return check_sees_all(self._find(name))

    def find_to_change(self, name: str) -> Index:
        """Return an index whose documents are to be changed; raises as `find` does."""
        return check_may_change(self._find(name))

    def see(self, name: str) -> Sight:
        """Return an index as whoever asks sees it: what is read of it goes by that.

        Raises IndexNotFoundError and ConflictError as `find` does.
        """
        return sight_of(self._find(name))

    def _find(self, name: str) -> Index:
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
        """Return definition and counts of one index; raises as `see` does.

        Whoever may neither see nor change all of it is told of the documents that they see.
        """
        sight = self.see(name)
        index = sight.index
        if sight.is_partial and not may_change(index):
            return report_of_seen(self._catalog, sight)
        try:
            reachable = self._vector_index.count(index.key)
        except VectorStoreError:
            reachable = None
        change = self._catalog.model_changes.get(index.id)
        return IndexReport(
            index=index,
            definition=sight.definition,
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
        if existing:
            check_sees_all(existing)
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
        """Remove an index with its documents; raise IndexNotFoundError, ForbiddenError.

        What was uploaded goes with it. Vectors stay by the hash of their text, so that building
        it again embeds nothing.
        """
        is_protected = is_ruled(self.find_to_change(name))
        deleted = self._catalog.indexes.delete(name, forgets_names=is_protected)
        self._tools.uploads.remove_index(deleted.id)
        self._problems.pop(name, None)
        self._tools.index_worker.hurry()

    def apply(self, definitions: Mapping[str, IndexDefinition]) -> None:
        """Create or change indexes as their definition files say, at start.

        One that cannot be applied keeps its former state, but for access rules, which hold at once,
        and its problem is told.
        """
        self._waiting = dict(definitions)
        self._apply_waiting(list(definitions))

    def _apply_waiting(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                with acting_as(OWNER):  # it is a file of the server's own, whoever asked
                    self.put(name, self._waiting[name])
            except KeyError:  # another request has just applied it
                continue
            except EmbedserveError as error:
                if self._problems.get(name) != error.message:
                    logger.warning("index %s: its definition is not in effect: %s", name, error)
                self._problems[name] = error.message
                self._protect_meanwhile(name)

    def _protect_meanwhile(self, name: str) -> None:
        """Let access rules hold where the rest of a definition file cannot be in effect."""
        existing, wanted = self._existing(name), self._waiting.get(name)
        if existing and wanted and wanted.access:
            self._protect_at_once(existing, wanted)

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
        self._protect_at_once(existing, definition)
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

    def _protect_at_once(self, existing: Index, definition: IndexDefinition) -> None:
        """Let access rules not wait until a job has embedded everything."""
        stored = definition_of(existing)
        if stored.access != definition.access:
            ruled = stored.model_copy(update={"access": definition.access})
            self._catalog.model_changes.stay(existing, ruled.model_dump_json())

    def _refuse_other_chunks(self, existing: Index, definition: IndexDefinition) -> None:
        stored = definition_of(existing)
        is_filled = self._catalog.indexes.counts(existing.id).chunks > 0
        if is_filled and stored.chunking != definition.chunking:
            raise ConflictError(
                f"Index `{existing.name}` holds chunks cut with another `chunking`; change it "
                f"after `embedserve index delete {existing.name}`, or choose a new name."
            )
