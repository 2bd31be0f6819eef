"""A copy of a home: sound while it is written to, there only when it is complete."""

import hashlib
import json
import os
import tarfile
from pathlib import Path
from threading import Event, Thread

import pytest

from embedserve.errors import CatalogError, ConflictError, PathNotFoundError
from embedserve.services.backup import back_up
from embedserve.store.catalog import Catalog
from tests.store_samples import catalog_with_index, document


def test_a_backup_taken_while_documents_are_committed_is_sound(tmp_path: Path) -> None:
    home, target = tmp_path / "home", tmp_path / "away" / "backup"
    home.mkdir()
    definitions = tmp_path / "indexes"
    definitions.mkdir()
    (definitions / "notes.toml").write_text('description = "x"\n')
    (definitions / "data").mkdir()
    is_over = Event()
    with catalog_with_index(home) as (catalog, index, job):

        def commit() -> None:
            number = 0
            while not is_over.is_set():
                number += 1
                version = document(f"/d/{number}", [f"{number} {n}" for n in range(20)])
                catalog.documents.commit(index, version, job_id=job, outcome="added")

        thread = Thread(target=commit)
        thread.start()
        try:
            made = back_up(home, target, definitions=definitions)
        finally:
            is_over.set()
            thread.join()
    assert (made.models, made.is_archive) == ((), False)
    contents = json.loads((target / "backup.json").read_bytes())
    assert sorted(contents["files"]) == ["catalog.sqlite3", "definitions/notes.toml"]
    for name, said in contents["files"].items():
        assert hashlib.sha256((target / name).read_bytes()).hexdigest() == said["sha256"]
    assert [path.name for path in target.parent.iterdir()] == ["backup"]
    with Catalog(target / "catalog.sqlite3") as copy:
        counts = copy.indexes.counts(index.id)
        assert counts.chunks == counts.vectors == 20 * counts.documents
        assert copy.integrity.file_problems() == []


def test_what_cannot_be_copied_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with pytest.raises(PathNotFoundError):
        back_up(home, tmp_path / "backup")
    with catalog_with_index(home):
        pass
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConflictError):
        back_up(home, tmp_path / "taken")
    content = bytearray((home / "catalog.sqlite3").read_bytes())
    content[4096:12288] = b"\xff" * 8192
    (home / "catalog.sqlite3").write_bytes(content)
    with pytest.raises(CatalogError):
        back_up(home, tmp_path / "backup.tar.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "taken"]


def test_a_backup_is_for_its_owner_alone(tmp_path: Path) -> None:
    home, definitions = tmp_path / "home", tmp_path / "indexes"
    with catalog_with_index(home):
        pass
    definitions.mkdir()
    (definitions / "notes.toml").write_text("")
    former = os.umask(0)
    try:
        back_up(home, tmp_path / "backup", definitions=definitions)
        back_up(home, tmp_path / "backup.tar", definitions=definitions)
    finally:
        os.umask(former)
    made = {path: path.stat().st_mode & 0o777 for path in (tmp_path / "backup").rglob("*")}
    folders = {tmp_path / "backup" / "definitions": 0o700}
    assert len(made) == 4
    assert made == {path: folders.get(path, 0o600) for path in made}
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "backup.tar").stat().st_mode & 0o777 == 0o600
    with tarfile.open(tmp_path / "backup.tar") as archive:
        assert {entry.mode for entry in archive} == {0o600}
