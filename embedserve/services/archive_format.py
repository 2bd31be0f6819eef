"""An index in one file: a zip of five members, written and read as a stream of pages.

    documents.jsonl   one JSON object a line, in order of `id`
    chunks.jsonl      the same; `document` is the `id` of the chunk's document
    hashes.txt        sha256 of each embedded text, one a line, ascending
    vectors.npy       (hashes, dimensions) little-endian float32, in that order
    manifest.json     format and version, the index, counts, size and sha256 of the others

The files that were uploaded are left out: their chunks, vectors and metadata are in it, so they are
found after an import, but cannot be cut or embedded anew from there.
Nothing is ever unpacked to disk, so the names in an archive lead nowhere.
"""

import hashlib
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from typing import IO, Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from embedserve.errors import InvalidRequestError
from embedserve.types import SourceKind

FORMAT = "embedserve-index"
VERSION = 3
READABLE = (1, 2, 3)
"""Versions that are read: the first knows files of folders alone, the second no lines of chunks."""
ROWS = ("documents.jsonl", "chunks.jsonl", "hashes.txt", "vectors.npy")
MANIFEST = "manifest.json"
PAGE_BYTES = 1 << 20
"""What is held in memory of a member, and the most that is read at once."""
LINE_BYTES = 8 << 20
SHA256 = r"^[0-9a-f]{64}$"

Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Row(BaseModel):
    """A part of an archive; what is unknown is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class DocumentRow(Row):
    """A line of documents.jsonl."""

    id: Whole
    path: str
    size_bytes: Whole
    mtime_ns: Whole
    sha256: str
    title: str
    kind: str
    indexed_at: str
    source: SourceKind = "folder"
    metadata: str = "{}"
    etag: str | None = None
    last_modified: str | None = None
    problem_code: str | None
    problem_stage: str | None
    problem_message: str | None
    problem_hint: str | None
    problem_is_retryable: Whole | None

    @field_validator("metadata")
    @classmethod
    def _need_object(cls, value: str) -> str:
        if not isinstance(json.loads(value), dict):
            raise ValueError("it is no JSON object")
        return value


class ChunkRow(Row):
    """A line of chunks.jsonl."""

    document: Whole
    ordinal: Whole
    span_start: Whole
    span_end: Whole
    page: Whole | None
    heading: list[str]
    text_hash: str = Field(pattern=SHA256)
    text: str
    line_start: Whole | None = None
    line_end: Whole | None = None


class ArchivedFile(Row):
    """What the manifest says of another member."""

    bytes: Whole
    sha256: str = Field(pattern=SHA256)


class ArchivedIndex(Row):
    """The index itself."""

    name: str
    definition: str
    """JSON of `services.definitions.IndexDefinition`."""
    model: str
    artefact: str = Field(pattern=SHA256)
    dimensions: int = Field(ge=1, le=65_536)
    created_at: str
    recipe: str = ""
    engine: str = ""
    """How the model was installed; empty when it was not at the export."""
    origin: str | None
    """JSON of `services.origins.Origin`."""


class ArchivedCounts(Row):
    """Rows of each kind."""

    documents: int = Field(ge=0)
    chunks: int = Field(ge=0)
    vectors: int = Field(ge=0)


class Manifest(Row):
    """manifest.json."""

    format: str
    version: int
    program: str
    created_at: str
    index: ArchivedIndex
    counts: ArchivedCounts
    files: dict[str, ArchivedFile]


class Pipe:
    """What a zip is written into; what has come is taken out again page by page."""

    def __init__(self) -> None:
        self._pages = BytesIO()

    def write(self, part: bytes) -> int:
        """Take the next part."""
        return self._pages.write(part)

    def flush(self) -> None:
        """Do nothing: there is nothing beneath."""

    def taken(self, *, at_least: int = PAGE_BYTES) -> Iterator[bytes]:
        """Give what has come when it is enough."""
        if self._pages.tell() >= at_least:
            yield self._pages.getvalue()
            self._pages = BytesIO()


class Writer:
    """Write members one after the other, as bytes that are ready to be sent."""

    def __init__(self) -> None:
        self._pipe = Pipe()
        # No `seek` there: zipfile then puts sizes behind the members instead of before them.
        self._zip = zipfile.ZipFile(self._pipe, "w")  # type: ignore[call-overload]
        self.files: dict[str, ArchivedFile] = {}

    def member(self, name: str, parts: Iterator[bytes], *, deflates: bool) -> Iterator[bytes]:
        """Write a member."""
        entry = zipfile.ZipInfo(name)
        entry.compress_type = zipfile.ZIP_DEFLATED if deflates else zipfile.ZIP_STORED
        digest, size = hashlib.sha256(), 0
        with self._zip.open(entry, "w", force_zip64=True) as target:
            for part in parts:
                target.write(part)
                digest.update(part)
                size += len(part)
                yield from self._pipe.taken()
        self.files[name] = ArchivedFile(bytes=size, sha256=digest.hexdigest())

    def end(self, manifest: Manifest) -> Iterator[bytes]:
        """Write the manifest and close the archive."""
        content = manifest.model_dump_json(indent=2).encode()
        yield from self.member(MANIFEST, iter([content]), deflates=False)
        self._zip.close()
        yield from self._pipe.taken(at_least=1)


def lines_of(records: Iterable[Mapping[str, object]]) -> Iterator[bytes]:
    """Return records as lines of JSON."""
    for record in records:
        yield json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def npy_header(count: int, dimensions: int) -> bytes:
    """Return what a .npy file of little-endian float32 begins with."""
    header = BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (count, dimensions)}
    np.lib.format.write_array_header_1_0(header, shape)
    return header.getvalue()


class BoundedFile:
    """A file that refuses to be read in large pieces: the sizes in an archive are foreign."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Read at most PAGE_BYTES, which for no size at all has to be the rest."""
        part = self._file.read(min(size, PAGE_BYTES + 1) if size >= 0 else PAGE_BYTES + 1)
        if size > PAGE_BYTES or len(part) > PAGE_BYTES:
            raise InvalidRequestError(
                "The archive has a directory that is larger than any index's. It is damaged, or "
                "none of ours."
            )
        return part

    def seekable(self) -> bool:
        """Tell that it is."""
        return True
