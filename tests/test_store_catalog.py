import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedserve.errors import CatalogError, ConflictError, IndexNotFoundError
from embedserve.store.catalog import Catalog
from embedserve.store.exact import ExactSearch
from embedserve.types import FileProblem, FoundFile, Index, KnownFile, LineSpan
from tests.store_samples import ARTEFACT, DIMENSIONS, catalog_with_index, document, unit_vectors

House = tuple[Catalog, Index, str]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with catalog_with_index(tmp_path) as opened:
        yield opened


def problem_of(path: str) -> KnownFile:
    return KnownFile(path, 1, 2, "s", FileProblem(path, "encrypted", "open", "locked", "unlock"))


def texts_of(catalog: Catalog, index: Index) -> set[str]:
    ids = catalog.chunks.ids(index.id).tolist()
    return {chunk.text for chunk in catalog.chunks.by_id(index.id, ids).values()}


def test_a_chunk_comes_back_as_it_went_in(house: House) -> None:
    catalog, index, job = house
    catalog.documents.commit(index, document("/d/a", ["zero\0 ü"]), job_id=job, outcome="added")
    [chunk] = catalog.chunks.by_id(index.id, catalog.chunks.ids(index.id).tolist()).values()
    assert (chunk.text, chunk.start, chunk.end, chunk.page) == ("zero\0 ü", 0, 7, 1)
    assert (chunk.heading, chunk.path, chunk.title) == (("Top", "Ünter"), "/d/a", "Title")
    assert chunk.lines == LineSpan(3, 5)


def test_replacing_a_document_removes_what_it_had(house: House) -> None:
    catalog, index, job = house
    catalog.documents.commit(index, document("/d/a", ["x", "y"]), job_id=job, outcome="added")
    old = catalog.chunks.ids(index.id).tolist()
    catalog.documents.commit(index, document("/d/a", ["y", "z"]), job_id=job, outcome="updated")
    assert texts_of(catalog, index) == {"y", "z"}
    assert catalog.chunks.by_id(index.id, old) == {}
    assert catalog.jobs.get(job).counts == {"updated": 1}


def test_a_reader_never_sees_a_mixture_of_two_versions(house: House) -> None:
    catalog, index, job = house
    versions = [[f"{version} {part}" for part in range(20)] for version in ("old", "new")]
    catalog.documents.commit(index, document("/d/a", versions[0]), job_id=job, outcome="added")
    seen: list[set[str]] = []
    has_ended = threading.Event()

    def read() -> None:
        while not has_ended.is_set():
            # One statement, so one snapshot: more ids than exist are asked for.
            rows = catalog.chunks.by_id(index.id, range(1, 20 * 62))
            seen.append({row.text for row in rows.values()})

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(60):
        version = document("/d/a", versions[turn % 2])
        catalog.documents.commit(index, version, job_id=job, outcome="updated")
    has_ended.set()
    reader.join()
    assert seen
    assert all(texts in (set(versions[0]), set(versions[1])) for texts in seen)


def test_a_deleted_document_cannot_be_reached_and_its_ids_are_never_used_again(
    house: House,
) -> None:
    catalog, index, job = house
    catalog.documents.commit(index, document("/d/a", ["x", "y"]), job_id=job, outcome="added")
    old = catalog.chunks.ids(index.id).tolist()
    catalog.documents.delete(index, "/d/a", job_id=job)
    assert catalog.chunks.by_id(index.id, old) == {}
    assert len(catalog.chunks.vectors_of(index, old).ids) == 0
    assert catalog.documents.known_files(index.id, "/") == {}
    catalog.documents.commit(index, document("/d/a", ["x", "y"]), job_id=job, outcome="added")
    assert not set(old) & set(catalog.chunks.ids(index.id).tolist())


def test_a_failing_commit_changes_nothing(house: House) -> None:
    catalog, index, job = house
    catalog.documents.commit(index, document("/d/a", ["x"]), job_id=job, outcome="added")
    with pytest.raises(CatalogError):
        catalog.documents.commit(index, document("/d/a", ["y"]), job_id="no", outcome="updated")
    assert texts_of(catalog, index) == {"x"}


def test_a_text_of_two_documents_is_stored_as_one_vector(house: House) -> None:
    catalog, index, job = house
    for path in ("/d/a", "/d/b"):
        catalog.documents.commit(index, document(path, ["x"]), job_id=job, outcome="added")
    version = document("/d/a", ["x", "never seen"])
    known = catalog.chunks.known_hashes(index, version.text_hashes)
    assert known == {version.text_hashes[0]}
    other = replace(index, artefact="b" * 64)
    assert catalog.chunks.known_hashes(other, version.text_hashes) == set()
    assert catalog.indexes.counts(index.id).vectors == 2


def test_more_hashes_are_looked_up_than_sqlite_has_variables(house: House) -> None:
    catalog, index, _ = house
    assert catalog.chunks.known_hashes(index, [str(n) for n in range(100_000)]) == set()


def test_known_files_are_those_at_or_below_a_path(house: House) -> None:
    catalog, index, job = house
    paths = ["/d/%_/a", "/d/%_/b/c", "/d/%_", "/d/%_x", "/d/xx/a", "/d/%_0", "/d/%"]
    for path in paths:
        catalog.documents.commit(index, document(path, ["x"]), job_id=job, outcome="added")
    assert set(catalog.documents.known_files(index.id, "/d/%_")) == set(paths[:3])
    assert set(catalog.documents.known_files(index.id, "/d/%_/")) == set(paths[:2])
    assert set(catalog.documents.known_files(index.id, "/")) == set(paths)
    assert set(catalog.documents.known_files(index.id, "/d/%_/a")) == {"/d/%_/a"}


@pytest.mark.parametrize("keep_previous", [True, False])
def test_a_problem_keeps_or_removes_the_previous_chunks(house: House, keep_previous: bool) -> None:
    catalog, index, job = house
    catalog.documents.commit(index, document("/d/a", ["x"]), job_id=job, outcome="added")
    broken = problem_of("/d/a")
    catalog.documents.commit_problem(
        index, broken, job_id=job, outcome="failed", keep_previous=keep_previous
    )
    assert texts_of(catalog, index) == ({"x"} if keep_previous else set())
    assert catalog.documents.known_files(index.id, "/d/a") == {"/d/a": broken}
    counts = catalog.indexes.counts(index.id)
    assert (counts.documents, counts.unreadable) == (int(keep_previous), 1)
    with catalog._database.read() as connection:
        row = connection.execute("SELECT kind FROM documents WHERE path = '/d/a'").fetchone()
    assert row[0] == ("text" if keep_previous else "")
    catalog.documents.commit(index, document("/d/a", ["y"]), job_id=job, outcome="updated")
    assert catalog.indexes.counts(index.id).unreadable == 0


def test_touch_changes_only_the_times(house: House) -> None:
    catalog, index, job = house
    catalog.documents.commit(index, document("/d/a", ["x"]), job_id=job, outcome="added")
    catalog.documents.touch(index, FoundFile("/d/a", 98, 99), job_id=job)
    assert catalog.documents.known_files(index.id, "/d") == {
        "/d/a": KnownFile("/d/a", 98, 99, "0" * 64)
    }


def test_a_path_that_is_not_unicode_is_a_catalog_error(house: House) -> None:
    catalog, index, job = house
    bad = document("/d/\udcff", ["x"])
    with pytest.raises(CatalogError, match="not valid Unicode"):
        catalog.documents.commit(index, bad, job_id=job, outcome="added")


def test_indexes_are_created_once_listed_and_deleted_with_all_they_hold(house: House) -> None:
    catalog, index, job = house
    with pytest.raises(ConflictError):
        catalog.indexes.create("notes", "{}", model="m", artefact=ARTEFACT, dimensions=3)
    catalog.documents.commit(index, document("/d/a", ["x"]), job_id=job, outcome="added")
    assert catalog.model_changes.stay(catalog.indexes.get("notes"), '{"a": 1}')
    assert catalog.indexes.get("notes").definition == '{"a": 1}'
    assert [found.name for found in catalog.indexes.all()] == ["notes"]
    assert catalog.indexes.delete("notes").id == index.id
    with pytest.raises(IndexNotFoundError, match="`notes` does not exist"):
        catalog.indexes.get("notes")
    with pytest.raises(IndexNotFoundError):
        catalog.documents.commit(index, document("/d/a", ["x"]), job_id=job, outcome="added")
    assert catalog.jobs.get(job).counts == {"added": 1}
    again = catalog.indexes.create("notes", "{}", model="m", artefact=ARTEFACT, dimensions=3)
    assert again.id > index.id
    assert catalog.indexes.counts(again.id).chunks == 0


def test_vectors_are_scanned_in_pages(house: House) -> None:
    catalog, index, job = house
    texts = [f"text {n}" for n in range(25)]
    catalog.documents.commit(index, document("/d/a", texts), job_id=job, outcome="added")
    first = catalog.chunks.vectors_after(index, 0, limit=10)
    second = catalog.chunks.vectors_after(index, int(first.ids[-1]), limit=100)
    assert np.array_equal(
        np.concatenate([first.vectors, second.vectors]), document("/d/a", texts).vectors
    )


def test_exact_search_ranks_like_a_full_product(house: House) -> None:
    catalog, index, job = house
    version = document("/d/a", [f"text {n}" for n in range(50)])
    catalog.documents.commit(index, version, job_id=job, outcome="added")
    query = unit_vectors(1, seed=5)[0]
    ids = catalog.chunks.ids(index.id)
    best = ids[np.argsort(-(version.vectors @ query))].tolist()
    search = ExactSearch(catalog.chunks).search
    assert [hit.id for hit in search(index, query, count=7)] == best[:7]
    among = search(index, query, count=3, among=[*best[10:14], 10**9])
    assert [hit.id for hit in among] == best[10:13]
    assert not search(index, query, count=3, among=[])


def test_marks_are_kept(house: House) -> None:
    catalog = house[0]
    assert catalog.get_meta("clean") is None
    catalog.set_meta("clean", "no")
    catalog.set_meta("clean", "yes")
    assert catalog.get_meta("clean") == "yes"


def test_vectors_of_the_wrong_size_are_refused(house: House) -> None:
    catalog, index, job = house
    wrong = Index(**{**vars(index), "dimensions": DIMENSIONS + 1})
    with pytest.raises(ValueError, match="This is a bug"):
        catalog.documents.commit(wrong, document("/d/a", ["x"]), job_id=job, outcome="added")


@pytest.mark.parametrize("blob", [b"12345", b"", b"1234" * (DIMENSIONS + 1)])
def test_a_damaged_vector_names_its_index_and_is_embedded_again(
    tmp_path: Path, blob: bytes
) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        version = document("/d/a", ["x", "y"])
        catalog.documents.commit(index, version, job_id=job, outcome="added")
        damage(tmp_path / "catalog.sqlite3", blob, version.text_hashes[0])
        ids = catalog.chunks.ids(index.id).tolist()
        for read in (
            lambda: catalog.changes.pending(index),
            lambda: catalog.chunks.vectors_of(index, ids),
            lambda: catalog.chunks.vectors_after(index, 0, limit=9),
        ):
            with pytest.raises(CatalogError, match="Index `notes` has a damaged vector"):
                read()
        known = catalog.chunks.known_hashes(index, version.text_hashes)
        assert known == {version.text_hashes[1]}
        catalog.documents.commit(index, version, job_id=job, outcome="updated")
        healed = catalog.chunks.vectors_after(index, 0, limit=9).vectors
        assert np.array_equal(healed, version.vectors)


def damage(path: Path, blob: bytes, text_hash: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE vectors SET vector = ? WHERE text_hash = ?", (blob, text_hash))
