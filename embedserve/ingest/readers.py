"""Readers that need no library, and the nouns that all readers share. Runs in the worker only."""

from dataclasses import dataclass, field

from embedserve.errors import ExtractionError
from embedserve.ingest import decode, formats
from embedserve.ingest.kinds import FileKind
from embedserve.ingest.markdown import front_matter

# Front matter is looked for at the top only.
FRONT_MATTER_CHARS = 20_000


@dataclass(frozen=True)
class Page:
    """A page or slide; without a number, the whole document."""

    number: int | None
    text: str


@dataclass(frozen=True)
class Read:
    """What a reader made of the bytes, before cleaning: pages, or the documents inside."""

    pages: list[Page]
    kind: str
    title: str = ""
    warnings: tuple[str, ...] = ()
    inside: "list[NamedRead]" = field(default_factory=list)


@dataclass(frozen=True)
class NamedRead:
    """A member of an archive, or a message of a mailbox."""

    name: str
    read: Read


def refusal(code: str, message: str, hint: str = "") -> ExtractionError:
    """Make the error that says why a document gives no text."""
    return ExtractionError(code, message, stage="extract", hint=hint)


def read_text(content: bytes, kind: FileKind) -> Read:
    """Decode text, Markdown and source code; refuse what is binary."""
    decoded = decode.decode(content)
    if decoded is None:
        raise is_binary()
    title = own_title(decode.clean(decoded.text[:FRONT_MATTER_CHARS]), kind)
    return Read([Page(None, decoded.text)], kind.kind, title, decoded.warnings)


def is_binary() -> ExtractionError:
    """Make the error for bytes that are no text."""
    return refusal(
        "unsupported", "It is binary, in no format that is read.", "Exclude it by a glob."
    )


def own_title(head: str, kind: FileKind) -> str:
    """Return the title that the front matter of Markdown gives, or nothing."""
    title = ""
    if kind.kind == "markdown":
        for line in front_matter(head).splitlines():
            if line.lower().startswith("title:"):
                title = line[6:].strip().strip("\"'")
    return title


def read_xml(content: bytes, kind: FileKind, max_nesting: int) -> Read:
    """Read the elements of XML; all of it, tags included, where it is not well-formed."""
    lines = formats.xml_lines(content, max_nesting)
    if lines is not None:
        return Read([Page(None, lines)], kind.kind)
    raw = read_text(content, FileKind("text", "code"))
    warning = "The XML is not well-formed; it was taken as it is, tags included."
    return Read(raw.pages, raw.kind, warnings=(warning, *raw.warnings))


def read_odp(content: bytes, kind: FileKind) -> Read:
    """Read the slides of an OpenDocument presentation."""
    slides = formats.odp_slides(content)
    return Read([Page(number, text) for number, text in enumerate(slides, start=1)], kind.kind)
