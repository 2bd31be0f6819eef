"""A file on its way in: found, read, cut.

Offsets are character offsets into the text that extraction produced, end exclusive.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

SourceKind = Literal["folder", "upload", "url"]
"""Where a document is from."""


@dataclass(frozen=True)
class FoundFile:
    """A file that a scan saw."""

    path: str
    """Absolute, symlinks resolved."""
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class SentFile:
    """A file that was sent for no index yet; indexes get copies of it."""

    id: str
    name: str
    """What its sender calls it; never a path on this machine."""
    purpose: str
    """In the sender's words; it changes nothing here."""
    stored: str
    """Its file, below the folder of such files."""
    size_bytes: int
    sent_at: str


@dataclass(frozen=True)
class FileProblem:
    """Why a path gave no chunks. See `errors.ExtractionError` for the fields."""

    path: str
    code: str
    stage: str
    message: str
    hint: str = ""
    is_retryable: bool = False


@dataclass(frozen=True)
class Provenance:
    """Where a document is from, and what came with it."""

    source: SourceKind = "folder"
    metadata: str = "{}"
    """JSON object of the sender's."""
    etag: str | None = None
    last_modified: str | None = None
    """What a web server said of an address, to be sent back to it."""
    stored: str = ""
    """File of an upload, below the folder of its index's uploads."""


FROM_FOLDER = Provenance()


@dataclass(frozen=True)
class KnownFile:
    """What the catalog remembers of a file, readable or not."""

    path: str
    size_bytes: int
    mtime_ns: int
    sha256: str
    problem: FileProblem | None = None
    """Set when the file's present version gave no chunks."""
    provenance: Provenance = FROM_FOLDER


@dataclass(frozen=True)
class Plan:
    """What a run has to do; pure outcome of `ingest.scan.plan`."""

    add: tuple[FoundFile, ...]
    update: tuple[FoundFile, ...]
    delete: tuple[str, ...]
    unchanged: tuple[KnownFile, ...]


@dataclass(frozen=True)
class PageSpan:
    """Where page `number` (1-based) lies in the extracted text."""

    number: int
    start: int
    end: int


@dataclass(frozen=True)
class MemberSpan:
    """Where a member of an archive, or a message of a mailbox, lies in the extracted text."""

    name: str
    kind: str
    """As in `Extraction`."""
    start: int
    """Of the line `# name` above its text."""
    end: int


class LongText(Protocol):
    """A text too long for memory, kept until it is closed."""

    @property
    def length(self) -> int:
        """Characters of all of it."""

    def pieces(self) -> Iterator[str]:
        """Yield it in order, as often as wanted."""

    def close(self) -> None:
        """Give back its room."""


@dataclass(frozen=True)
class Extraction:
    """The text of one file, as read from exactly the bytes that `sha256` names."""

    text: str
    kind: str
    """How the text is to be cut: a row of `ingest.layouts.LAYOUTS`."""
    title: str
    sha256: str
    size_bytes: int
    pages: tuple[PageSpan, ...] = ()
    members: tuple[MemberSpan, ...] = ()
    """In order; none for what is one document."""
    warnings: tuple[str, ...] = ()
    """What was lost or guessed on the way, in words for the user."""
    long_text: LongText | None = None
    """Instead of `text`, where that is too long for it."""

    @property
    def length(self) -> int:
        """Characters of the text."""
        return self.long_text.length if self.long_text else len(self.text)


@dataclass(frozen=True)
class LineSpan:
    """Lines of the document's text on which something begins and ends, both 1-based."""

    start: int
    end: int


@dataclass(frozen=True)
class Chunk:
    """One span of a document: `document_text[start:end] == text`."""

    ordinal: int
    text: str
    start: int
    end: int
    page: int | None = None
    heading: tuple[str, ...] = ()
    """Headings above the chunk, or definitions around it, outermost first; last, the column names
    (`| name | value |`) of the table whose rows the chunk begins with."""
    lines: LineSpan | None = None
    tokens: "array[int] | None" = field(default=None, compare=False, repr=False)
    """Ids of its tokens, where they are the same whatever stands before and behind it."""
