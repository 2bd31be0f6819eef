"""An index is added while others write: it waits for nobody, and is no mixture."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedserve.errors import ConflictError
from embedserve.store.catalog import Catalog
from embedserve.store.model_changes import ModelChange
from embedserve.store.staging import Record, Staging
from embedserve.store.transfer import Arrival, StoredVector
from embedserve.types import Index
from tests.store_samples import ARTEFACT, DIMENSIONS, document, unit_vectors

DOCUMENT: Record = {
    "id": 7, "path": "/d/a", "size_bytes": 1, "mtime_ns": 2, "sha256": "", "title": "T",
    "kind": "text", "indexed_at": "", "source": "folder", "metadata": "{}", "etag": None,
    "last_modified": None, "problem_code": None, "problem_stage": None,
    "problem_message": None, "problem_hint": None, "problem_is_retryable": None,
}  # fmt: skip
CHUNK: Record = {
    "document": 7, "ordinal": 0, "span_start": 0, "span_end": 1, "page": None, "heading": ["ü"],
    "text_hash": "a", "text": "x", "line_start": None, "line_end": None,
}  # fmt: skip


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "c") as catalog:
        yield catalog


def add(
    catalog: Catalog, folder: Path, between: Callable[[], object], *, origin: str | None = "here"
) -> Index:
    """Add an index of one chunk; `between` is called while its vectors are asked for."""

    def vectors() -> Iterator[StoredVector]:
        yield StoredVector("a", unit_vectors(1)[0].tobytes())
        between()

    with Staging(folder) as rows:
        assert list(folder.glob(".import-*")) == []
        rows.add_documents([DOCUMENT])
        rows.add_chunks([CHUNK])
        arrival = Arrival("new", "{}", "m", ARTEFACT, DIMENSIONS, origin, rows, vectors)
        return catalog.transfer.add(arrival, is_same_origin=lambda one, other: one == other)


def test_others_write_while_vectors_are_read(catalog: Catalog, tmp_path: Path) -> None:
    # The only writer's lock is not reentrant: held now, it would never be given.
    index = add(catalog, tmp_path, lambda: catalog.set_meta("seen", "yes"))
    assert catalog.get_meta("seen") == "yes"
    assert catalog.chunks.vectors_of(index, [1]).vectors.shape == (1, DIMENSIONS)
    assert catalog.changes.pending_ids(index.id).tolist() == [1]
    assert catalog.chunks.by_id(index.id, [1])[1].heading == ("ü",)


def test_an_index_whose_vectors_are_deleted_meanwhile_is_not_added(
    catalog: Catalog, tmp_path: Path
) -> None:
    calls: list[None] = []

    def late() -> None:
        calls.append(None)
        with catalog._database.write() as connection:
            connection.execute(
                "CREATE TEMP TRIGGER IF NOT EXISTS swept AFTER INSERT ON indexes BEGIN"
                " DELETE FROM vectors; END"
            )

    with pytest.raises(ConflictError, match="no vacuum is at work"):
        add(catalog, tmp_path, late)
    assert len(calls) == 3, "they are stored again and again"
    assert catalog.indexes.all() == []


def test_vectors_begun_anew_meanwhile_are_no_mixture(catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(ConflictError, match="begun anew"):
        add(catalog, tmp_path, lambda: catalog.origins.renew(ARTEFACT, "there"))
    assert catalog.indexes.all() == []
    with catalog._database.read() as connection:
        assert connection.execute("SELECT count(*) FROM vectors").fetchone() == (0,)


def test_an_index_on_its_way_to_a_model_holds_its_origin(catalog: Catalog, tmp_path: Path) -> None:
    other = catalog.indexes.create("i", "{}", model="n", artefact="b" * 64, dimensions=DIMENSIONS)
    job = catalog.jobs.create("i", "/d").id
    catalog.documents.commit(other, document("/d/a", ["x"]), job_id=job, outcome="added")
    catalog.origins.add(ARTEFACT, "there")
    assert catalog.model_changes.ask(other, ModelChange(other.id, "{}", "m", ARTEFACT, DIMENSIONS))
    assert not catalog.origins.renew(ARTEFACT, "here")
    for origin in ("here", None):
        with pytest.raises(ConflictError, match="another class of machine"):
            add(catalog, tmp_path, lambda: None, origin=origin)
    assert catalog.model_changes.stay(other, "{}")
    add(catalog, tmp_path, lambda: None, origin=None)
    assert catalog.origins.get(ARTEFACT) is None
