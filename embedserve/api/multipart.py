"""multipart/form-data (RFC 7578) as a stream of events: no part is ever held as a whole."""

from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message

from embedserve.errors import InvalidRequestError

HEADER_BYTES = 16 * 1024
"""Of one part; browsers send two lines."""
MAX_BOUNDARY_CHARS = 200


@dataclass(frozen=True)
class PartBegins:
    """A part with its name and, for a file, what its sender calls it."""

    name: str
    filename: str | None


@dataclass(frozen=True)
class PartBytes:
    """The next bytes of the part."""

    content: bytes


@dataclass(frozen=True)
class PartEnds:
    """The part is over."""


Event = PartBegins | PartBytes | PartEnds


def boundary_of(content_type: str) -> bytes:
    """Return what separates the parts; raise InvalidRequestError for a header without it."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not 0 < len(boundary) <= MAX_BOUNDARY_CHARS:
        raise InvalidRequestError(
            "The Content-Type multipart/form-data lacks its boundary; let your HTTP client set it."
        )
    return boundary.encode("latin-1", "replace")


class MultipartParser:
    """Feed it a body in any pieces; raises InvalidRequestError for what is no multipart."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._buffer = bytearray(b"\r\n")  # the first delimiter may begin the body
        self._step = self._preamble

    def feed(self, content: bytes) -> Iterator[Event]:
        """Take the next piece and give what it brings."""
        self._buffer += content
        while True:
            before = (len(self._buffer), self._step)
            yield from self._step()
            if before == (len(self._buffer), self._step):
                return

    def finish(self) -> None:
        """Check that the last part was whole."""
        if self._step != self._epilogue:
            raise InvalidRequestError(
                "The multipart body ends before its last boundary; it was cut on the way."
            )

    def _preamble(self) -> Iterator[Event]:
        place = self._buffer.find(self._delimiter)
        if place >= 0:
            del self._buffer[: place + len(self._delimiter)]
            self._step = self._after_delimiter
        else:
            self._keep_tail()
        yield from ()

    def _after_delimiter(self) -> Iterator[Event]:
        if self._buffer.startswith(b"--"):
            self._step = self._epilogue
        elif self._buffer.startswith(b"\r\n"):
            # The line end stays: it begins the empty line of a part without headers.
            self._step = self._headers
        elif len(self._buffer) >= 2:
            raise InvalidRequestError("The multipart body has a boundary that does not end.")
        yield from ()

    def _headers(self) -> Iterator[Event]:
        end = self._buffer.find(b"\r\n\r\n")
        if end > HEADER_BYTES or (end < 0 and len(self._buffer) > HEADER_BYTES):
            raise InvalidRequestError(f"A part's headers are longer than {HEADER_BYTES} bytes.")
        if end < 0:
            return
        lines = bytes(self._buffer[2:end])
        # An empty part's delimiter may begin with the line end that ends its headers.
        del self._buffer[: end + 2]
        yield _begin(lines)
        self._step = self._first_bytes

    def _first_bytes(self) -> Iterator[Event]:
        if len(self._buffer) >= len(self._delimiter):
            if not self._buffer.startswith(self._delimiter):
                del self._buffer[:2]
            self._step = self._body
        yield from ()

    def _body(self) -> Iterator[Event]:
        place = self._buffer.find(self._delimiter)
        if place >= 0:
            if place:
                yield PartBytes(bytes(self._buffer[:place]))
            del self._buffer[: place + len(self._delimiter)]
            self._step = self._after_delimiter
            yield PartEnds()
            return
        content = self._keep_tail()
        if content:
            yield PartBytes(content)

    def _epilogue(self) -> Iterator[Event]:
        self._buffer.clear()
        yield from ()

    def _keep_tail(self) -> bytes:
        """Take all but what may be the beginning of a delimiter."""
        size = max(0, len(self._buffer) - len(self._delimiter) + 1)
        content = bytes(self._buffer[:size])
        del self._buffer[:size]
        return content


def _begin(lines: bytes) -> PartBegins:
    for line in lines.decode("utf-8", "replace").split("\r\n"):
        key, _, value = line.partition(":")
        if key.strip().lower() == "content-disposition":
            header = Message()
            header["Content-Disposition"] = value.strip()
            name = header.get_param("name", header="content-disposition")
            if isinstance(name, str):
                return PartBegins(name, header.get_filename())
    raise InvalidRequestError(
        "A part of the multipart body has no Content-Disposition with a name."
    )
