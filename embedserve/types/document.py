"""A document as a reader sees it: what it is, and its text part by part."""

from dataclasses import dataclass

from embedserve.types.file import LineSpan, SourceKind


@dataclass(frozen=True)
class DocumentHead:
    """A document that was indexed."""

    id: int
    index_id: int
    index: str
    path: str
    title: str
    kind: str
    sha256: str
    """Of the file that its chunks are of."""
    source: SourceKind
    metadata: str
    """JSON object."""
    chars: int
    """Where its last chunk ends."""


@dataclass(frozen=True)
class DocumentFile:
    """The file that a document was read from."""

    size_bytes: int
    """When it was read."""
    stored: str
    """Of an upload: its name among those of the index. Empty: it is no upload, or not kept."""


@dataclass(frozen=True)
class TextPiece:
    """A chunk as a part of its document's text."""

    text: str
    start: int
    end: int
    page: int | None
    lines: LineSpan | None
    """None: it was cut before they were kept."""
