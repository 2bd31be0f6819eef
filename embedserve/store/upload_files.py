"""The bytes of uploads: files with names of our own, below uploads/<index id>/ of the home.

What a sender calls a file is never part of a path here; only its ending is kept, because it says
how the file is to be read.
"""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from embedserve.errors import CatalogUnavailableError, IndexNotFoundError, TooLargeError

ENDING = re.compile(r"\.[A-Za-z0-9]{1,12}")
INCOMING = ".incoming-"
"""Begins the name of a file that is still being received."""
NO_INDEX = 0
"""Number of the folder of files that are for no index, or not yet; indexes are counted from 1. What
no row names is swept at the start there as elsewhere."""


class Incoming:
    """A file on its way in; `keep` gives it its place, else `close` removes it.

    Raises IndexNotFoundError when its folder goes meanwhile, and CatalogUnavailableError.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self._limit_bytes = limit_bytes
        self.size_bytes = 0
        with _Translated(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._path = folder / f"{INCOMING}{uuid4().hex}"
            self._file: BinaryIO | None = self._path.open("xb")

    def write(self, part: bytes) -> None:
        """Take the next part; raise TooLargeError beyond the limit."""
        self.size_bytes += len(part)
        if self.size_bytes > self._limit_bytes:
            raise TooLargeError(
                f"The document is larger than {self._limit_bytes} bytes "
                "(EMBEDSERVE_MAX_FILE_BYTES)."
            )
        if self._file is None:
            raise ValueError("This is a bug: an upload is written after its end")
        with _Translated(self.folder):
            self._file.write(part)

    def keep(self, name: str) -> str:
        """Store it for good and return its own name, with the ending of `name`."""
        ending = os.path.splitext(name)[1]
        stored = uuid4().hex + (ending.lower() if ENDING.fullmatch(ending) else "")
        if self._file is None:
            raise ValueError("This is a bug: an upload is kept after its end")
        with _Translated(self.folder):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._path.replace(self.folder / stored)
            _sync(self.folder)
        self._file = None
        return stored

    def close(self) -> None:
        """Remove what was not kept."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._path.unlink(missing_ok=True)


class UploadFiles:
    """The folder of all uploads."""

    def __init__(self, folder: Path, *, limit_bytes: int) -> None:
        """`limit_bytes`: of one document."""
        self._folder = folder
        self._limit_bytes = limit_bytes

    def folder(self, index_id: int) -> Path:
        """Return where the files of an index lie."""
        return self._folder / str(index_id)

    def open(self, index_id: int) -> Incoming:
        """Begin to receive a file."""
        return Incoming(self.folder(index_id), self._limit_bytes)

    def remove(self, index_id: int, stored: Iterable[str]) -> None:
        """Delete files that no row names any more."""
        for name in stored:
            (self.folder(index_id) / name).unlink(missing_ok=True)

    def remove_index(self, index_id: int) -> None:
        """Delete every file of an index that was deleted."""
        shutil.rmtree(self.folder(index_id), ignore_errors=True)

    def sweep(self, known: Mapping[int, set[str]]) -> int:
        """Delete every file that no row names, and return how many; for the start alone."""
        deleted = 0
        for folder in self._folder.glob("*"):
            kept = known.get(int(folder.name), set()) if folder.name.isdigit() else set()
            for file in folder.iterdir():
                if file.name not in kept:
                    file.unlink(missing_ok=True)
                    deleted += 1
            if not kept:
                folder.rmdir()
        return deleted


class _Translated:
    """Turn what the system says of a folder into an error of ours."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FileNotFoundError):  # only `remove_index` takes the folder away
            raise IndexNotFoundError(
                "The index was deleted while the document was received. List the indexes, or "
                "create it again and send the document once more."
            ) from error
        if isinstance(error, OSError):
            raise CatalogUnavailableError(
                f"`{self._folder}` cannot be written: {error.strerror}. Free some space in the "
                "home, or give the server the right to write there."
            ) from error


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
