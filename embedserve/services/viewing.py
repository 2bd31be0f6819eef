"""Who asks, and which documents of an index they may see. Every read of an index goes by it.

Who asks is set once for a request (`acting_as`) and stays with it through its threads and tasks.
What nobody set is NOBODY: whoever forgets it sees nothing of a protected index, never all of it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from embedserve.errors import ForbiddenError, IndexNotFoundError
from embedserve.services.access import visible_to
from embedserve.services.definitions import IndexDefinition, definition_of
from embedserve.store.catalog import Catalog
from embedserve.types import EVERY_DOCUMENT, AllOf, FieldTest, Filter, Index


@dataclass(frozen=True)
class Viewer:
    """Who asks, and what they may do with indexes that have access rules; with others: anything."""

    claims: Mapping[str, object] = field(default_factory=dict)
    """Of a token that was verified; empty: none came."""
    sees_all: bool = False
    may_change: bool = False
    """Whether to send, delete and ingest documents, which tells of no other documents' content."""

    @property
    def is_proven(self) -> bool:
        """Tell whether a token or a key has shown who it is."""
        return bool(self.claims) or self.sees_all


NOBODY = Viewer()
OWNER = Viewer(sees_all=True, may_change=True)
"""Whoever can read the home's files: the server itself at work, and the commands."""

_viewer: ContextVar[Viewer] = ContextVar("viewer", default=NOBODY)


@contextmanager
def acting_as(viewer: Viewer) -> Iterator[None]:
    """Let what is done inside be done for `viewer`."""
    token = _viewer.set(viewer)
    try:
        yield
    finally:
        _viewer.reset(token)


def viewer() -> Viewer:
    """Return who asks."""
    return _viewer.get()


@dataclass(frozen=True)
class Sight:
    """An index as whoever asks sees it."""

    index: Index
    definition: IndexDefinition
    visible: Filter
    """Documents that may be seen; EVERY_DOCUMENT alone is all of them."""

    @property
    def is_partial(self) -> bool:
        """Tell whether some documents may be hidden, so that nothing may tell of all of them."""
        return self.visible != EVERY_DOCUMENT

    def among(self, wanted: Filter) -> Filter:
        """Return which of the wanted documents may be seen."""
        return AllOf((wanted, self.visible)) if self.is_partial else wanted


def sight_of(index: Index) -> Sight:
    """Return an index as whoever asks sees it."""
    definition = definition_of(index)
    if definition.access is None or viewer().sees_all:
        return Sight(index, definition, EVERY_DOCUMENT)
    return Sight(index, definition, visible_to(viewer().claims, definition.access))


def is_ruled(index: Index) -> bool:
    """Tell whether an index has access rules, that is, is protected."""
    return definition_of(index).access is not None


def is_seen(catalog: Catalog, index: Index, document_id: int) -> bool:
    """Tell whether whoever asks may see one document."""
    sight = sight_of(index)
    if not sight.is_partial:
        return True
    wanted = sight.among(FieldTest("id", "in", (document_id,)))
    return bool(catalog.uploads.page(index.id, wanted, limit=1))


def check_sees_all(index: Index) -> Index:
    """Return the index; raise ForbiddenError for whoever may not see all of it."""
    if sight_of(index).is_partial:
        raise ForbiddenError(
            f"Index `{index.name}` has access rules, and this shows all of it. Send an API key "
            "with the scope `admin` and no user token, or use the commands on its own machine."
        )
    return index


def may_change(index: Index) -> bool:
    """Tell whether whoever asks may change what an index holds."""
    return viewer().may_change or viewer().sees_all or not is_ruled(index)


def may_see_jobs(catalog: Catalog, index_name: str) -> bool:
    """Tell whether whoever asks may see the jobs of an index, which name its documents."""
    try:
        return may_change(catalog.indexes.get(index_name))
    except IndexNotFoundError:  # of one that was protected no name is left
        return True


def check_may_change(index: Index) -> Index:
    """Return the index; raise ForbiddenError for whoever may not change what it holds."""
    if not may_change(index):
        raise ForbiddenError(
            f"Index `{index.name}` has access rules: it is changed with an API key that has the "
            "scope `ingest`, and without a user token."
        )
    return index
