"""Files that were sent for no index yet: their rows, their bytes, and the names of documents."""

from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from embedserve.errors import DocumentNotFoundError, InvalidRequestError, TooLargeError
from embedserve.services.backup import back_up
from embedserve.services.sent_files import FileName, FileService, file_name_of, filter_of_file
from embedserve.store.catalog import Catalog
from embedserve.store.upload_files import NO_INDEX, UploadFiles
from embedserve.types import SentFile


def service(catalog: Catalog, home: Path) -> FileService:
    return FileService(catalog, UploadFiles(home / "uploads", limit_bytes=100), cast(Any, None))


def kept(files: FileService, name: str, content: bytes, purpose: str = "") -> SentFile:
    upload = files.receive(name)
    with closing(upload.file):
        upload.file.write(content)
        return files.keep(upload, purpose)


def test_files_are_listed_in_the_order_they_came(tmp_path: Path) -> None:
    with Catalog(tmp_path / "catalog.sqlite3") as catalog:
        files = service(catalog, tmp_path)
        sent = [
            kept(files, f"{n}.txt", b"x" * n, "even" if n % 2 == 0 else "odd") for n in range(5)
        ]

        def page(**asked: Any) -> list[SentFile]:  # noqa: ANN401
            given = {"limit": 9, "after": "", "purpose": "", "is_newest_first": False, **asked}
            return files.page(**given)

        assert page() == sent
        assert page(is_newest_first=True) == sent[::-1]
        assert page(after=sent[1].id, limit=2) == sent[2:4]
        assert page(after=sent[1].id, is_newest_first=True) == sent[:1]
        assert page(purpose="odd") == [sent[1], sent[3]]
        assert [b"".join(files.blocks(file)) for file in sent[:2]] == [b"", b"x"]
        with pytest.raises(DocumentNotFoundError, match="file-none"):
            page(after="file-none")


def test_only_what_has_a_row_is_swept_around_and_backed_up(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    uploads = UploadFiles(home / "uploads", limit_bytes=100)
    with Catalog(home / "catalog.sqlite3") as catalog:
        files = service(catalog, home)
        first, second = kept(files, "a.txt", b"first"), kept(files, "b.txt", b"second")
        files.delete(second.id)
        left_behind = uploads.open(NO_INDEX)
        assert uploads.sweep({NO_INDEX: catalog.files.stored()}) == 1
        left_behind.close()
        assert b"".join(files.blocks(files.get(first.id))) == b"first"
        with pytest.raises(DocumentNotFoundError):
            files.delete(second.id)
        back_up(home, tmp_path / "backup")
    copied = tmp_path / "backup" / "uploads" / "0" / first.stored
    assert copied.read_bytes() == b"first"


def test_what_is_too_large_or_has_no_name_is_refused(tmp_path: Path) -> None:
    with Catalog(tmp_path / "catalog.sqlite3") as catalog:
        files = service(catalog, tmp_path)
        with pytest.raises(TooLargeError):
            kept(files, "a.txt", b"x" * 101)
        with pytest.raises(InvalidRequestError):
            kept(files, "", b"x")
        with pytest.raises(InvalidRequestError, match="purpose"):
            kept(files, "a.txt", b"x", "p" * 101)
        assert catalog.files.stored() == set()
        assert list((tmp_path / "uploads" / "0").iterdir()) == []


def test_every_document_has_a_name_as_a_file() -> None:
    file_id = "file-" + "0a" * 12
    assert file_name_of(3, f"{file_id}/a/b.pdf") == FileName(file_id, "a/b.pdf")
    assert file_name_of(3, "/home/me/notes/b.md") == FileName("doc-3", "b.md")
    assert filter_of_file(file_id) == {"paths": [f"{file_id}/*"]}
    assert filter_of_file("doc-3") == {"ids": [3]}
    for wrong in ("doc-", "doc-0", "file-*", "file-" + "0a" * 12 + "/x", "*"):
        with pytest.raises(DocumentNotFoundError):
            filter_of_file(wrong)
