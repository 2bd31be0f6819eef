"""Open archives in memory: ZIP, TAR and single compressed files. Runs in the worker only.

Nothing is written anywhere, so a member's name is a label and never a path. What unpacks to more
than the limits allow ends the whole file: it is a bomb, or too large to be one document.
"""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO

from embedserve.errors import ExtractionError
from embedserve.ingest import decode
from embedserve.ingest.limits import MIB, ReadLimits
from embedserve.ingest.readers import refusal

MAX_NAME_CHARS = 200
# A small file may well shrink to less than a two hundredth; bombs begin above.
RATIO_FREE_BYTES = 4 * MIB
_STEP_BYTES = MIB
# Of the others the standard library unpacks a whole piece at a time, however much it becomes.
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_GZIP, _BZIP2, _XZ = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
)


class OverAllowanceError(ExtractionError):
    """The whole file goes over a limit, not one member of it."""


@dataclass(frozen=True)
class Packed:
    """A member with its bytes, or with the reason why there are none."""

    name: str
    content: bytes = b""
    problem: ExtractionError | None = None


@dataclass
class Allowance:
    """What is left for one file and for all archives in it."""

    limits: ReadLimits
    packed_bytes: int
    members: int = 0
    unpacked_bytes: int = 0
    depth: int = 0
    most_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        by_ratio = max(RATIO_FREE_BYTES, self.packed_bytes * self.limits.archive_ratio)
        self.most_bytes = min(self.limits.archive_bytes, by_ratio)

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """Count one more archive around what is read inside."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def count_member(self) -> None:
        """Note one more member; raise ExtractionError when there are too many."""
        self.members += 1
        if self.members > self.limits.archive_members:
            raise _too_large(
                f"It has more than {self.limits.archive_members} members.", "ARCHIVE_MEMBERS"
            )

    def count_bytes(self, unpacked: int) -> None:
        """Note unpacked bytes; raise ExtractionError when they are too many in all."""
        self.unpacked_bytes += unpacked
        if self.unpacked_bytes <= self.most_bytes:
            return
        if self.most_bytes == self.limits.archive_bytes:
            raise _too_large(f"It unpacks to over {self.most_bytes} bytes.", "ARCHIVE_BYTES")
        raise _too_large(
            f"It unpacks to over {self.limits.archive_ratio} times its size.", "ARCHIVE_RATIO"
        )


def unpacked(content: bytes, name: str, allowance: Allowance) -> Iterator[Packed]:
    """Yield the members of an archive that may be documents, in its own order.

    Raises ExtractionError when the archive is damaged from the start, or over a limit.
    """
    try:
        if content.startswith(b"PK"):
            yield from _zip_members(content, allowance)
            return
        packed = io.BytesIO(content)
        stream = _stream(content, packed)
        head = _read(stream, 512, allowance)
        rest = io.BufferedReader(_Rewound(head, stream, allowance))  # type: ignore[type-var]
        if _is_tar(head):
            yield from _tar_members(rest, allowance)
            return
        if stream is packed:
            raise EOFError("it is no archive, or a part of one")
        allowance.count_member()
        yield _packed(_inner_name(name), rest, allowance.limits.max_file_bytes)
    except _BROKEN as error:
        raise refusal(
            "corrupt",
            f"It cannot be unpacked: {type(error).__name__}: {str(error)[:200]}",
            "Pack it anew; archives in several parts have to be joined first.",
        ) from error


def is_archive(content: bytes) -> bool:
    """Tell by the bytes whether a file without a telling name is a compressed one or a TAR."""
    return content.startswith((_GZIP, _BZIP2, _XZ)) or _is_tar(content[:512])


def label(name: str) -> str:
    """Return a member's name on one line that leads nowhere."""
    parts = PurePosixPath(decode.clean(name.replace("\\", "/"))).parts
    kept = [" ".join(part.split()) for part in parts if part not in ("/", "..", ".")]
    return "/".join(part for part in kept if part)[-MAX_NAME_CHARS:] or "unnamed"


def _zip_members(content: bytes, allowance: Allowance) -> Iterator[Packed]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for info in archive.infolist():
            name = _zip_name(info)
            if info.is_dir() or _is_hidden(name):
                continue
            allowance.count_member()
            if info.flag_bits & 1:
                problem = refusal("encrypted", "It is encrypted.", "Pack it without a password.")
                yield Packed(label(name), problem=problem)
                continue
            if info.compress_type not in _BOUNDED:
                yield Packed(label(name), problem=_not_opened(info.compress_type))
                continue
            try:
                with archive.open(info) as file:
                    yield _packed(name, file, allowance.limits.max_file_bytes, allowance)
            except (*_BROKEN, RuntimeError) as error:
                yield Packed(label(name), problem=refusal("corrupt", str(error)[:200]))


def _not_opened(compress_type: int) -> ExtractionError:
    message = f"It is packed by method {compress_type}, which is not opened; pack it with Deflate."
    return refusal("unsupported", message)


def _zip_name(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & 0x800:  # said to be UTF-8
        return info.filename
    decoded = decode.decode(info.filename.encode("cp437"))
    return decoded.text if decoded else info.filename


def _tar_members(stream: IO[bytes], allowance: Allowance) -> Iterator[Packed]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for info in archive:
            if not info.isfile() or _is_hidden(info.name):
                continue
            allowance.count_member()
            file = archive.extractfile(info)
            if file is not None:
                yield _packed(info.name, file, allowance.limits.max_file_bytes)


def _packed(name: str, file: IO[bytes], most: int, allowance: Allowance | None = None) -> Packed:
    pieces: list[bytes] = []
    size = 0
    while piece := file.read(_STEP_BYTES):
        size += len(piece)
        if allowance is not None:
            allowance.count_bytes(len(piece))
        if size > most:
            return Packed(label(name), problem=refusal("too_large", f"It has over {most} bytes."))
        pieces.append(piece)
    return Packed(label(name), b"".join(pieces))


class _Rewound(io.RawIOBase):
    """A stream whose first bytes were read already, and are given out again; counts the rest."""

    def __init__(self, head: bytes, stream: IO[bytes], allowance: Allowance) -> None:
        self._head = head
        self._stream = stream
        self._allowance = allowance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        if self._head:
            piece, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        else:
            piece = _read(self._stream, len(buffer), self._allowance)
        buffer[: len(piece)] = piece
        return len(piece)


def _stream(content: bytes, packed: IO[bytes]) -> IO[bytes]:
    if content.startswith(_GZIP):
        return gzip.GzipFile(fileobj=packed)  # type: ignore[return-value]
    if content.startswith(_BZIP2):
        return bz2.BZ2File(packed)
    return lzma.LZMAFile(packed) if content.startswith(_XZ) else packed


def _read(stream: IO[bytes], length: int, allowance: Allowance) -> bytes:
    piece = stream.read(length)
    allowance.count_bytes(len(piece))
    return piece


def _is_tar(head: bytes) -> bool:
    return head[257:262] == b"ustar"


def _inner_name(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem + (".tar" if suffix.lower() in ("tgz", "tbz2", "txz") else "") if dot else name


def _is_hidden(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return any(part[:1] == "." and part not in (".", "..") for part in parts) or (
        "__MACOSX" in parts
    )


def _too_large(message: str, setting: str) -> ExtractionError:
    hint = f"Unpack it beside it, or raise EMBEDSERVE_{setting}."
    return OverAllowanceError("too_large", message, stage="extract", hint=hint)
