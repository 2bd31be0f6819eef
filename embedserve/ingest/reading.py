"""From bytes and a name to pages of text: choose the reader, open archives, say why not.

Runs in the worker only.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from embedserve.errors import ExtractionError
from embedserve.ingest import archives, decode, formats, library, pdf_form
from embedserve.ingest.archives import Allowance, Packed
from embedserve.ingest.boxes import with_boxes_moved
from embedserve.ingest.drawings import drawn_lines
from embedserve.ingest.kinds import FileKind
from embedserve.ingest.limits import ReadLimits
from embedserve.ingest.mail import attachments
from embedserve.ingest.members import Members, has_text, read_members
from embedserve.ingest.odt import read_odt
from embedserve.ingest.pdf_form import FormError, filled_fields
from embedserve.ingest.readers import (
    NamedRead,
    Page,
    Read,
    read_odp,
    read_text,
    read_xml,
    refusal,
)
from embedserve.ingest.rtf import read_rtf
from embedserve.ingest.sniffing import kind_by, silence

_OCR_HINT = "Run OCR over it first, or set EMBEDSERVE_OCR_LANGUAGES."


@dataclass(frozen=True)
class Reading:
    """The reading of one file, and of everything inside it."""

    limits: ReadLimits
    deadline: float
    """On the monotonic clock: when slow work is given up in favour of what was read."""

    def read(self, content: bytes, name: str) -> Read:
        """Return what the file holds; raise ExtractionError when that is no text."""
        return self._read(content, name, Allowance(self.limits, len(content)))

    def _read(self, content: bytes, name: str, allowance: Allowance) -> Read:
        kind = kind_by(content, name)
        read = self._by_kind(content, name, kind, allowance)
        if not has_text(read):
            raise _silence(content, kind, is_recognised=bool(self.limits.ocr_languages))
        return read

    def _by_kind(self, content: bytes, name: str, kind: FileKind, allowance: Allowance) -> Read:
        if kind.reader == "archive":
            return self._archive(content, name, allowance)
        if kind.reader == "mail":
            return self._mail(content, kind, allowance)
        if kind.reader == "mbox":
            return self._mbox(content, kind, allowance)
        if kind.reader == "picture":
            return self._picture(content, kind)
        if kind.reader == "html":
            return _read_html(content, kind, self.limits.max_nesting)
        if kind.reader == "xml":
            return read_xml(content, kind, self.limits.max_nesting)
        if kind.mime == "application/pdf":
            return self._pdf(content, kind)
        readers = {
            "text": read_text,
            "ooxml": _read_ooxml,
            "rtf": read_rtf,
            "odp": read_odp,
            "odt": read_odt,
        }
        return readers.get(kind.reader, library.read_library)(content, kind)

    def _picture(self, content: bytes, kind: FileKind) -> Read:
        if self.limits.ocr_languages:
            return library.read_picture(content, kind, self.limits.ocr_languages)
        hint = "Set EMBEDSERVE_OCR_LANGUAGES, or add a text version of it."
        raise refusal("unsupported", "A picture has no text without OCR.", hint)

    def _pdf(self, content: bytes, kind: FileKind) -> Read:
        read = _with_form(library.read_library(content, kind), content)
        blank = _blank(read.pages)
        if not blank:
            return read
        languages = self.limits.ocr_languages
        is_recognised = bool(languages) and library.has_pictures(content)
        pages, warnings = read.pages, list(read.warnings)
        if is_recognised:
            pages = library.recognised(content, pages, languages, self.deadline)
            if filled := blank - _blank(pages):
                warnings.append(f"The text of {filled} page(s) is from OCR; it may hold mistakes.")
        if left := _blank(pages):
            hint = _OCR_HINT if library.has_pictures(content) and not is_recognised else ""
            warnings.append(f"{left} of {len(pages)} pages gave no text. {hint}".rstrip())
        return replace(read, pages=pages, warnings=tuple(warnings))

    def _archive(self, content: bytes, name: str, allowance: Allowance) -> Read:
        if allowance.depth >= self.limits.archive_depth:
            raise refusal(
                "too_nested",
                f"It lies {allowance.depth} archives deep.",
                "Unpack it beside it, or raise EMBEDSERVE_ARCHIVE_DEPTH.",
            )
        members = self._members(archives.unpacked(content, name, allowance), allowance)
        if not members.inside:
            raise members.nothing()
        return Read([], "markdown", warnings=members.warnings(), inside=members.inside)

    def _mail(self, content: bytes, kind: FileKind, allowance: Allowance) -> Read:
        read = library.read_library(content, kind)
        # What is attached is read here, whatever the library made of it.
        warnings = [one for one in read.warnings if not one.startswith(library.OF_ATTACHMENTS)]
        if allowance.depth >= self.limits.archive_depth:
            warnings.append("What is attached lies too deep to be read.")
            return replace(read, inside=[], warnings=tuple(warnings))
        members = self._members(attachments(content, allowance), allowance)
        if members.rest and members.rest.error.code == "too_nested":
            raise members.rest.error  # the library takes such a message for one long text
        read = replace(read, inside=members.inside, warnings=(*warnings, *members.warnings()))
        if not has_text(read) and (members.problems or members.rest):
            raise members.nothing()
        return read

    def _mbox(self, content: bytes, kind: FileKind, allowance: Allowance) -> Read:
        messages = (
            Packed(f"Message {number}", message)
            for number, message in enumerate(formats.mbox_messages(content), start=1)
        )
        members = read_members(messages, partial(self._message, kind, allowance), self.deadline)
        if not members.inside:
            raise members.nothing()
        return Read([], kind.kind, warnings=members.warnings(), inside=members.inside)

    def _message(self, kind: FileKind, allowance: Allowance, member: Packed) -> NamedRead:
        read = self._mail(member.content, kind, allowance)
        if not has_text(read):
            raise _silence(member.content, kind, is_recognised=False)
        return NamedRead(archives.label(read.title or member.name), read)

    def _members(self, members: Iterator[Packed], allowance: Allowance) -> Members:
        with allowance.deeper():
            return read_members(members, partial(self._member, allowance), self.deadline)

    def _member(self, allowance: Allowance, member: Packed) -> NamedRead:
        return NamedRead(member.name, self._read(member.content, member.name, allowance))


def preload() -> None:
    """Load the parsers, for a process that will open no file again; raise ImportError."""
    library.preload()
    pdf_form.preload()


def deadline_of(timeout_s: float) -> float:
    """Return when slow work has to end for the rest to be done in time."""
    return time.monotonic() + timeout_s * library.OCR_TIME_SHARE


def _with_form(read: Read, content: bytes) -> Read:
    """Put what was filled into the form of a PDF behind the text of its pages."""
    try:
        fields = filled_fields(content)
    except FormError as error:
        return replace(read, warnings=(*read.warnings, str(error)))
    pages = [
        replace(
            page,
            text="\n\n".join(filter(None, [page.text.rstrip(), *fields.pop(page.number or 0, [])])),
        )
        for page in read.pages
    ]
    rest = [Page(number, "\n\n".join(lines)) for number, lines in fields.items()]
    return replace(read, pages=[*pages, *rest])


def _read_ooxml(content: bytes, kind: FileKind) -> Read:
    """Read a document, sheet or slides, and the words in their drawings behind them."""
    read = library.read_library(with_boxes_moved(content), kind)
    said = "\n".join(page.text for page in read.pages)
    drawn = [line for line in drawn_lines(content) if line not in said]
    return replace(read, pages=[*read.pages, Page(None, "\n\n".join(drawn))]) if drawn else read


def _read_html(content: bytes, kind: FileKind, max_nesting: int) -> Read:
    decoded = decode.decode(content, is_markup=True)
    page = formats.clean_html(decoded.text if decoded else "", max_nesting)
    read = library.read_library(page.html.encode(), kind)
    return Read(read.pages, read.kind, page.title, decoded.warnings if decoded else ())


def _blank(pages: list[Page]) -> int:
    return sum(not page.text.strip() for page in pages)


def _silence(content: bytes, kind: FileKind, *, is_recognised: bool) -> ExtractionError:
    is_pdf = kind.mime == "application/pdf" and not formats.is_encrypted(content)
    if is_pdf and library.has_pictures(content):
        if is_recognised:
            return refusal("scanned", "Its pages are pictures in which OCR found no words.")
        return refusal("scanned", "Its pages are pictures without a text layer.", _OCR_HINT)
    return silence(content)
