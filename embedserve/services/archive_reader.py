"""An archive that somebody sent: trusted in nothing, read page by page."""

import hashlib
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, RawIOBase
from typing import IO, TypeVar, cast

from pydantic import ValidationError

from embedserve.errors import InvalidRequestError, TooLargeError
from embedserve.services.archive_format import (
    FORMAT,
    LINE_BYTES,
    MANIFEST,
    PAGE_BYTES,
    READABLE,
    ROWS,
    VERSION,
    ArchivedIndex,
    BoundedFile,
    ChunkRow,
    DocumentRow,
    Manifest,
    Row,
    npy_header,
)
from embedserve.store.rows import BYTES_PER_FLOAT, are_sound
from embedserve.store.staging import Record
from embedserve.store.transfer import StoredVector

BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What can be unpacked in pieces of a given size; for others zipfile unpacks as much as comes, and
a page of bzip2 may be 600 GB."""

R = TypeVar("R", bound=Row)


class Reader:
    """The members of an archive, checked when this is made.

    Raises InvalidRequestError for what is no archive of ours, of another version, or damaged, and
    TooLargeError when its members together are larger than `limit_bytes`.
    """

    def __init__(self, file: IO[bytes], *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        with _translated():
            self._zip = zipfile.ZipFile(cast(IO[bytes], BoundedFile(file)))
            self._check_members()
            self.manifest = _manifest(self._whole(MANIFEST))
            for name in ROWS:
                self._check_content(name)

    @property
    def index(self) -> ArchivedIndex:
        """The index that it holds."""
        return self.manifest.index

    def documents(self) -> Iterator[Record]:
        """Give the documents, in order of `id`."""
        last = None
        for row in self._rows("documents.jsonl", DocumentRow, self.manifest.counts.documents):
            if last is not None and row.id <= last:
                raise InvalidRequestError("The archive's documents are not in order of their id.")
            last = row.id
            yield row.model_dump()

    def chunks(self) -> Iterator[Record]:
        """Give the chunks."""
        for row in self._rows("chunks.jsonl", ChunkRow, self.manifest.counts.chunks):
            yield row.model_dump()

    def vectors(self) -> Iterator[StoredVector]:
        """Give the vectors by the hash of their text; each is finite and of unit length."""
        count, dimensions = self.manifest.counts.vectors, self.index.dimensions
        header = npy_header(count, dimensions)
        with _translated(), self._zip.open("vectors.npy") as file:
            if file.read(len(header)) != header:
                raise InvalidRequestError(
                    f"The archive's vectors.npy does not hold {count} rows of {dimensions} float32."
                )
            for text_hash in self._hashes(count):
                content = file.read(dimensions * BYTES_PER_FLOAT)
                _check_vector(content, dimensions)
                yield StoredVector(text_hash, content)
            if file.read(1):
                raise InvalidRequestError("The archive has more vectors than hashes.")

    def _hashes(self, count: int) -> Iterator[str]:
        last = ""
        for line in self._lines("hashes.txt", count):
            text_hash = line.decode("ascii", errors="replace").rstrip("\n")
            if len(text_hash) != 64 or set(text_hash) - set("0123456789abcdef"):
                raise InvalidRequestError("The archive's hashes.txt has a line that is no sha256.")
            if text_hash <= last:
                raise InvalidRequestError("The archive's hashes.txt is not in order.")
            last = text_hash
            yield text_hash

    def _check_members(self) -> None:
        entries = self._zip.infolist()
        names = sorted(entry.filename for entry in entries)
        if names != sorted([*ROWS, MANIFEST]):
            raise InvalidRequestError(
                f"The archive does not hold what an index's does: {', '.join(names)[:300]}."
            )
        if any(entry.flag_bits & 1 for entry in entries):
            raise InvalidRequestError("The archive is encrypted. Export it without a password.")
        if any(entry.compress_type not in BOUNDED for entry in entries):
            raise InvalidRequestError(
                "The archive is compressed in a way that is not read here. Export it again, or "
                "pack it with deflate."
            )
        if sum(entry.file_size for entry in entries) > self._limit_bytes:
            raise TooLargeError(
                f"The archive unpacks to more than {self._limit_bytes} bytes "
                "(EMBEDSERVE_MAX_ARCHIVE_BYTES)."
            )

    def _open(self, name: str) -> RawIOBase:
        # Buffered already by its type, but slow at lines; whatever can be read will do.
        return cast(RawIOBase, self._zip.open(name))

    def _whole(self, name: str) -> bytes:
        with self._zip.open(name) as file:
            content = file.read(PAGE_BYTES)
            if file.read(1):
                raise InvalidRequestError(
                    f"The archive's {name} is larger than {PAGE_BYTES} bytes."
                )
            return content

    def _check_content(self, name: str) -> None:
        """Compare size and checksum with the manifest's."""
        said = self.manifest.files.get(name)
        digest, size = hashlib.sha256(), 0
        with self._zip.open(name) as file:
            while page := file.read(PAGE_BYTES):
                digest.update(page)
                size += len(page)
        if said is None or (said.bytes, said.sha256) != (size, digest.hexdigest()):
            raise InvalidRequestError(
                f"The archive is damaged: {name} is not what its manifest says. Copy or export it "
                "again."
            )

    def _rows(self, name: str, kind: type[R], count: int) -> Iterator[R]:
        for number, line in enumerate(self._lines(name, count), start=1):
            try:
                yield kind.model_validate_json(line)
            except ValidationError as error:
                raise InvalidRequestError(
                    f"The archive's {name}, line {number}: {_first(error)}"
                ) from error

    def _lines(self, name: str, count: int) -> Iterator[bytes]:
        """Give as many lines as the manifest says that there are."""
        with _translated(), BufferedReader(self._open(name), PAGE_BYTES) as file:
            for _ in range(count):
                line = file.readline(LINE_BYTES)
                if not line.endswith(b"\n"):
                    raise InvalidRequestError(
                        f"The archive's {name} ends early, or has a line over {LINE_BYTES} bytes."
                    )
                yield line
            if file.read(1):
                raise InvalidRequestError(f"The archive's {name} has more rows than it says.")


def _manifest(content: bytes) -> Manifest:
    try:
        value = json.loads(content)
        said = (value["format"], value["version"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidRequestError("The archive's manifest.json cannot be read.") from error
    if said[0] != FORMAT or said[1] not in READABLE:
        raise InvalidRequestError(
            f"The archive has format `{said[0]}`, version {said[1]}; this program reads "
            f"`{FORMAT}`, versions 1 to {VERSION}. Use the release that "
            "wrote it, or export it again."
        )
    try:
        return Manifest.model_validate(value)
    except ValidationError as error:
        raise InvalidRequestError(f"The archive's manifest.json: {_first(error)}") from error


def _check_vector(content: bytes, dimensions: int) -> None:
    if len(content) != dimensions * BYTES_PER_FLOAT or not are_sound([content], dimensions).all():
        raise InvalidRequestError("The archive has a vector that is not finite and of length one.")


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"`{'.'.join(str(part) for part in first['loc'])}`: {first['msg']}."


# What zipfile makes of damage; the second line: of names and numbers in its directory.
DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError,
    ValueError, OverflowError, OSError, struct.error,
)  # fmt: skip


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise InvalidRequestError(
            f"The archive cannot be read ({error}). Copy or export it again."
        ) from error
