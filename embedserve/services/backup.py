"""A copy of the home while it is in use: catalog, models, uploads, definitions. Chroma is left out.

The vector index is derived: a home that lacks it fills it again from the catalog at its start.
Nothing here needs the server; one may run and go on writing.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from embedserve import __version__
from embedserve.errors import CatalogError, ConflictError, PathNotFoundError
from embedserve.models.installed import list_installed

CATALOG = "catalog.sqlite3"
CONTENTS = "backup.json"
FORMAT = "embedserve-backup"
VERSION = 1
TAR_MODES = {".tar": "w:", ".tar.gz": "w:gz", ".tgz": "w:gz"}
PAGE_BYTES = 1 << 20
# The texts of all documents are in it: for the owner alone, whatever the umask.
FOLDER_MODE = 0o700
FILE_MODE = 0o600


@dataclass(frozen=True)
class Backup:
    """What was copied."""

    target: Path
    files: int
    size_bytes: int
    models: tuple[str, ...]
    is_archive: bool


@dataclass(frozen=True)
class _Part:
    name: str
    """Path in the backup."""
    path: Path


def back_up(home: Path, target: Path, *, definitions: Path | None = None) -> Backup:
    """Copy a home to a folder, or into one file when `target` ends in .tar, .tar.gz or .tgz.

    The target appears when it is complete. Raises PathNotFoundError without a catalog,
    ConflictError for a target that exists, CatalogError when the copy fails or is not sound.
    """
    source, target = home / CATALOG, target.absolute()
    if not source.is_file():
        raise PathNotFoundError(f"`{home}` holds no catalog. Give the home with `--home DIR`.")
    if target.exists():
        raise ConflictError(f"`{target}` exists. Choose another name for the backup.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".backup-", dir=target.parent) as scratch:
            return _make(home, target, Path(scratch), definitions)
    except (OSError, sqlite3.Error) as error:
        raise CatalogError(
            f"The backup of `{home}` to `{target}` failed: {error}. Check free space and rights."
        ) from error


def _make(home: Path, target: Path, scratch: Path, definitions: Path | None) -> Backup:
    catalog = scratch / CATALOG
    _copy_catalog(home / CATALOG, catalog)
    models = list_installed(home / "models")
    parts = [_Part(CATALOG, catalog), *_model_parts(home / "models", [m.folder for m in models])]
    parts += _upload_parts(home / "uploads", catalog)
    if definitions and definitions.is_dir():
        parts += [_Part(f"definitions/{p.name}", p) for p in sorted(definitions.glob("*.toml"))]
    contents = scratch / CONTENTS
    contents.write_text(json.dumps(_contents(parts), indent=2), encoding="utf-8")
    parts.append(_Part(CONTENTS, contents))
    ending = next((end for end in TAR_MODES if target.name.endswith(end)), None)
    made = scratch / "made"
    if ending:
        _write_tar(made, parts, TAR_MODES[ending])
    else:
        _write_folder(made, parts)
    made.replace(target)
    _sync(target.parent)
    names = tuple(sorted(model.name.display for model in models))
    total = sum(part.path.stat().st_size for part in parts if part.path.exists())
    return Backup(target, len(parts), total, names, bool(ending))


def _copy_catalog(source: Path, copy: Path) -> None:
    """Copy the catalog as it is at one moment, through SQLite, and look whether it is sound.

    In one step: the server goes on writing, and a copy in many steps would begin anew each time.
    """
    with closing(sqlite3.connect(source)) as there, closing(sqlite3.connect(copy)) as here:
        there.backup(here, pages=-1)
        # A copy of a file with a write-ahead log asks for one too; a single file travels better.
        here.execute("PRAGMA journal_mode = DELETE").fetchall()
        [verdict] = here.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise CatalogError(
            f"The catalog `{source}` is damaged ({verdict}), and so would its backup be. Look at "
            "it with `embedserve index check NAME`, or restore an older backup."
        )


def _model_parts(models: Path, folders: list[Path]) -> Iterator[_Part]:
    """Give the files of whole models; a pull or a removal at work is left out."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                yield _Part(f"models/{path.relative_to(models).as_posix()}", path)


_STORED = {
    "uploads": "SELECT index_id, stored FROM uploads ORDER BY stored",
    "files": "SELECT 0, stored FROM files ORDER BY stored",
}
"""Tables that name stored files, and the folder and name of each."""


def _upload_parts(uploads: Path, catalog: Path) -> Iterator[_Part]:
    """Give the uploads that the copied catalog knows."""
    with closing(sqlite3.connect(catalog)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {row[0] for row in found}  # an earlier version has fewer
        selects = [sql for table, sql in _STORED.items() if table in tables]
        rows = [row for sql in selects for row in connection.execute(sql)]
    for index_id, stored in rows:
        path = uploads / str(index_id) / stored
        if not path.is_file():
            raise CatalogError(
                f"The upload `{path}` is gone: it was replaced while the backup was made. Run the "
                "backup again."
            )
        yield _Part(f"uploads/{index_id}/{stored}", path)


def _contents(parts: list[_Part]) -> dict[str, object]:
    files = {}
    for part in parts:
        digest = hashlib.sha256()
        with part.path.open("rb") as file:
            while page := file.read(PAGE_BYTES):
                digest.update(page)
        files[part.name] = {"bytes": part.path.stat().st_size, "sha256": digest.hexdigest()}
    return {
        "format": FORMAT,
        "version": VERSION,
        "program": __version__,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "left_out": "chroma: derived, filled again from the catalog when the home is served",
        "files": files,
    }


def _write_folder(target: Path, parts: list[_Part]) -> None:
    """Copy files; names of one model that share a file on disk share it in the copy as well."""
    copied: dict[tuple[int, int], Path] = {}
    folders = {target}
    target.mkdir(mode=FOLDER_MODE)
    for part in parts:
        place = target / part.name
        for folder in reversed([f for f in place.parents if f.is_relative_to(target)]):
            folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
            folders.add(folder)
        status = part.path.stat()
        key = (status.st_dev, status.st_ino)
        if key in copied:
            os.link(copied[key], place)
            continue
        shutil.copy2(part.path, place)
        place.chmod(FILE_MODE)
        copied[key] = place
        _sync(place)
    for folder in folders:
        _sync(folder)


def _write_tar(target: Path, parts: list[_Part], mode: str) -> None:
    with tarfile.open(target, mode) as archive:  # type: ignore[call-overload]
        for part in parts:
            archive.add(part.path, arcname=part.name, recursive=False, filter=_private)
    target.chmod(FILE_MODE)
    _sync(target)


def _private(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode = FILE_MODE
    return entry


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
