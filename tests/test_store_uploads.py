"""Uploads in the catalog: which job has them, and what a late commit does."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from embedserve.store.catalog import Catalog
from embedserve.store.upload_files import UploadFiles
from embedserve.types import (
    EVERY_DOCUMENT,
    FileProblem,
    Index,
    KnownFile,
    Provenance,
    StoredUpload,
)
from tests.store_samples import catalog_with_index, document


@pytest.fixture
def house(tmp_path: Path) -> Iterator[tuple[Catalog, Index]]:
    with catalog_with_index(tmp_path) as (catalog, index, _):
        yield catalog, index


def send(catalog: Catalog, index: Index, stored: str, path: str = "a") -> str:
    """Send a version and return its job."""
    upload = StoredUpload(path, stored, 1, "", '{"v": 1}')
    return catalog.uploads.accept(index, [upload]).job.id


def commit(catalog: Catalog, index: Index, job: str, stored: str) -> None:
    version = replace(document("a", [stored]), provenance=Provenance("upload", stored=stored))
    catalog.documents.commit(index, version, job_id=job, outcome="added")


def statuses(catalog: Catalog, index: Index) -> list[tuple[str, bool, int]]:
    found = catalog.uploads.page(index.id, EVERY_DOCUMENT, limit=10)
    return [(document.path, document.is_pending, document.chunks) for document in found]


def test_an_older_version_that_is_ready_late_changes_nothing(
    house: tuple[Catalog, Index],
) -> None:
    catalog, index = house
    first = send(catalog, index, "one")
    second = send(catalog, index, "two")
    assert catalog.uploads.of_job(index.id, first) == []
    commit(catalog, index, first, "one")
    assert statuses(catalog, index) == [("a", True, 0)]
    assert catalog.jobs.get(first).counts == {}
    commit(catalog, index, second, "two")
    assert statuses(catalog, index) == [("a", False, 1)]
    assert catalog.uploads.of_job(index.id, second) == []


def test_what_was_deleted_meanwhile_does_not_come_back(house: tuple[Catalog, Index]) -> None:
    catalog, index = house
    job = send(catalog, index, "one")
    assert catalog.uploads.remove(index, "a").stored == ("one",)
    commit(catalog, index, job, "one")
    problem = FileProblem("a", "corrupt", "extract", "It is.")
    known = KnownFile("a", 1, 1, "", problem, Provenance("upload", stored="one"))
    catalog.documents.commit_problem(index, known, job_id=job, outcome="failed", keep_previous=True)
    assert statuses(catalog, index) == []


def test_a_job_takes_what_others_have_left(house: tuple[Catalog, Index]) -> None:
    catalog, index = house
    cancelled = send(catalog, index, "one")
    waiting = send(catalog, index, "two", "b")
    failed = send(catalog, index, "three", "c")
    catalog.jobs.finish(cancelled, "cancelled")
    problem = FileProblem("c", "timed_out", "extract", "It did.", is_retryable=True)
    known = KnownFile("c", 1, 1, "", problem, Provenance("upload", stored="three"))
    catalog.documents.commit_problem(
        index, known, job_id=failed, outcome="failed", keep_previous=True
    )
    job = catalog.jobs.create("notes", "").id
    catalog.uploads.adopt(index.id, job)
    assert [upload.path for upload in catalog.uploads.of_job(index.id, job)] == ["a", "c"]
    assert [upload.path for upload in catalog.uploads.of_job(index.id, waiting)] == ["b"]


def test_names_of_senders_are_never_names_of_files(tmp_path: Path) -> None:
    files = UploadFiles(tmp_path / "uploads", limit_bytes=10)
    for name in ("../../etc/x", "a/b", "a.m/d", "a." + "x" * 50, "ü.ü", ".md"):
        incoming = files.open(7)
        incoming.write(b"x")
        stored = incoming.keep(name)
        assert set(stored) <= set("0123456789abcdef"), name
    incoming = files.open(7)
    assert incoming.keep("../A.PDF").endswith(".pdf")
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {files.folder(7)}
    assert files.sweep({}) == 7
    assert list((tmp_path / "uploads").iterdir()) == []
