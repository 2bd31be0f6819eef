"""Original files: what is given is what was read, from allowed folders alone."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from embedserve.errors import (
    ConflictError,
    DocumentNotFoundError,
    EmbedserveError,
    PathNotAllowedError,
    TooLargeError,
)
from embedserve.services.originals import BLOCK_BYTES, Originals
from embedserve.services.roots import AllowedRoots
from embedserve.store.catalog import Catalog
from embedserve.store.upload_files import UploadFiles
from embedserve.types import DocumentHead, Index, Provenance, StoredUpload
from tests.store_samples import catalog_with_index, document

CONTENT = b"what was read, " * 50_000


class Shelf:
    """A catalog with documents of files below an allowed folder."""

    def __init__(self, catalog: Catalog, index: Index, job: str, folder: Path) -> None:
        self.catalog, self.index, self.job = catalog, index, job
        self.folder = folder / "docs"
        self.folder.mkdir()
        self.uploads = UploadFiles(folder / "uploads", limit_bytes=10**7)

    def add(self, path: str, provenance: Provenance | None = None) -> DocumentHead:
        """Keep a document that was read from a file of CONTENT."""
        version = replace(
            document(path, [f"text of {path}"], sha256=hashlib.sha256(CONTENT).hexdigest()),
            size_bytes=len(CONTENT),
            provenance=provenance or Provenance(),
        )
        self.catalog.documents.commit(self.index, version, job_id=self.job, outcome="added")
        heads = (self.catalog.document_text.head(number) for number in range(1, 20))
        return next(head for head in heads if head and head.path == path)

    def file(self, name: str = "a.txt") -> tuple[Path, DocumentHead]:
        path = self.folder / name
        path.write_bytes(CONTENT)
        return path, self.add(str(path))

    def originals(self, limit_bytes: int = 10**7) -> Originals:
        roots = AllowedRoots([self.folder])
        return Originals(self.catalog, roots, self.uploads, limit_bytes=limit_bytes)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        yield Shelf(catalog, index, job, tmp_path)


def refused(originals: Originals, head: DocumentHead, kind: type[EmbedserveError]) -> str:
    """Return why, which page and download agree on."""
    with pytest.raises(kind) as caught:
        originals.open(head)
    return caught.value.message


def test_a_file_is_given_as_it_was_read(shelf: Shelf) -> None:
    _, head = shelf.file()
    originals = shelf.originals()
    offer = originals.offer(head)
    assert offer
    assert (offer.name, offer.size_bytes, offer.problem) == ("a.txt", len(CONTENT), "")
    assert b"".join(originals.open(head).blocks()) == CONTENT


@pytest.mark.parametrize("way", ["file", "folder"])
def test_a_link_that_was_put_in_place_of_it_leads_nowhere(shelf: Shelf, way: str) -> None:
    path, head = shelf.file("sub-a.txt") if way == "file" else (shelf.folder / "sub" / "a", None)
    secret = shelf.folder.parent / "secret"
    secret.mkdir()
    (secret / "a").write_bytes(CONTENT)  # the same bytes: only the place tells
    if head is None:
        path.parent.mkdir()
        path.write_bytes(CONTENT)
        head = shelf.add(str(path))
        path.unlink()
        path.parent.rmdir()
        path.parent.symlink_to(secret)
    else:
        path.unlink()
        path.symlink_to(secret / "a")
    originals = shelf.originals()
    told = refused(originals, head, PathNotAllowedError)
    assert str(secret) not in told
    offer = originals.offer(head)
    assert offer
    assert offer.problem == told


def test_a_path_outside_of_the_roots_is_not_opened(shelf: Shelf) -> None:
    outside = shelf.folder.parent / "outside.txt"
    outside.write_bytes(CONTENT)
    for path in (str(outside), f"{shelf.folder}/../outside.txt"):
        refused(shelf.originals(), shelf.add(path), PathNotAllowedError)
    refused(shelf.originals(), shelf.add("relative.txt"), DocumentNotFoundError)


def test_what_changed_is_gone_or_is_no_file_is_told(shelf: Shelf) -> None:
    path, head = shelf.file()
    originals = shelf.originals()
    path.write_bytes(CONTENT[:-1] + b"!")
    assert "has changed" in refused(originals, head, ConflictError)
    path.write_bytes(b"")
    assert "has changed" in refused(originals, head, ConflictError)
    path.unlink()
    assert "no longer there" in refused(originals, head, DocumentNotFoundError)
    os.mkfifo(path)
    assert "has changed" in refused(originals, head, ConflictError)


def test_a_file_that_changes_while_it_is_sent_is_not_sent_to_its_end(shelf: Shelf) -> None:
    path, head = shelf.file()
    blocks = shelf.originals().open(head).blocks()
    assert next(blocks) == CONTENT[:BLOCK_BYTES]
    path.write_bytes(CONTENT + b"more")
    with pytest.raises(ConflictError):
        list(blocks)


def test_limits_and_the_policy_hold(shelf: Shelf) -> None:
    _, head = shelf.file()
    assert "EMBEDSERVE_MAX_ORIGINAL_BYTES" in refused(
        shelf.originals(len(CONTENT) - 1), head, TooLargeError
    )
    assert shelf.originals(0).offer(head) is None
    refused(shelf.originals(0), head, DocumentNotFoundError)


def test_uploads_have_the_kept_file_and_addresses_none(shelf: Shelf) -> None:
    incoming = shelf.uploads.open(shelf.index.id)
    incoming.write(CONTENT)
    stored = incoming.keep("../../etc/x.txt")
    fetched = shelf.add("https://example.com/a?b", Provenance("url"))
    offer = shelf.originals().offer(fetched)
    assert offer
    assert offer.address == "https://example.com/a?b"
    refused(shelf.originals(), fetched, DocumentNotFoundError)
    upload = StoredUpload("../../etc/x.txt", stored, len(CONTENT), "", "{}")
    shelf.catalog.uploads.accept(shelf.index, [upload])
    head = shelf.add(upload.path, Provenance("upload", stored=stored))
    assert b"".join(shelf.originals().open(head).blocks()) == CONTENT
    shelf.uploads.remove(shelf.index.id, [stored])
    refused(shelf.originals(), head, DocumentNotFoundError)
