"""Text boxes of Word documents, moved to where the extraction library reads them.

A text box hangs inside a paragraph. The library gives its words instead of those of the paragraph
around it, or loses them, and Word stores most boxes twice (a drawing, and an older form of it for
older programs). So before a document is read, each box's paragraphs are moved behind the paragraph
that it hangs at, and the second copy is dropped: pieces of the file's own bytes in another order.
Runs in the jailed worker only.
"""

import io
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from xml.parsers import expat

_PARTS = re.compile(r"word/(?:document|header\d*|footer\d*|footnotes|endnotes)\d*\.xml")
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main "
_STRICT = "http://purl.oclc.org/ooxml/wordprocessingml/main "
_PARAGRAPHS = (f"{_WORD}p", f"{_STRICT}p")
_BOXES = (f"{_WORD}txbxContent", f"{_STRICT}txbxContent")
_COMPATIBILITY = "http://schemas.openxmlformats.org/markup-compatibility/2006 "
_CHOICES, _FALLBACK = f"{_COMPATIBILITY}AlternateContent", f"{_COMPATIBILITY}Fallback"
# A value may hold `>`, so a tag does not end at the first one.
_START_TAG = re.compile(rb"<[^\s<>/\"'=]+(?:\s*[^\s<>/\"'=]+\s*=\s*(?:\"[^\"]*\"|'[^']*'))*\s*/?>")
_MARK = b"txbxContent"


def with_boxes_moved(content: bytes) -> bytes:
    """Return a DOCX whose boxes are paragraphs; what cannot be opened or parsed, as it is."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = filter(_PARTS.fullmatch, archive.namelist())
            parts = {name: part for name in names if _MARK in (part := archive.read(name))}
        moved = {name: _moved(part) for name, part in parts.items()}
        return _replaced(content, moved) if moved else content
    except (
        *(zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, RuntimeError, OSError),
        *(expat.ExpatError, NotImplementedError, _UnfitError),
    ):
        return content  # the library says what is wrong with it


class _UnfitError(Exception):
    """Its bytes cannot be moved about."""


@dataclass
class _Level:
    """A text under way: the document's, or that of a box."""

    pieces: list[bytes] = field(default_factory=list)
    waiting: list[list[bytes]] = field(default_factory=list)
    """For each paragraph that is open, what comes behind it."""


class _Mover:
    """Take the events of a parser and put the bytes in order."""

    def __init__(self, part: bytes) -> None:
        self._part = part
        self._taken = 0
        self._levels = [_Level()]
        self._has_box: list[bool] = []
        """For each choice that is open, whether a box was found in it."""
        self._dropped = 0
        """Elements that are open in what is dropped."""
        self._root_end = 0
        self._declared: dict[str, str] = {}
        self._root_prefixes: set[str | None] = set()
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartNamespaceDeclHandler = self._declare
        self._parser.StartDoctypeDeclHandler = self._refuse

    def moved(self) -> bytes:
        """Return the part in its new order."""
        self._parser.Parse(self._part, True)
        self._take(len(self._part))
        text = b"".join(self._levels[0].pieces)
        # A box is moved out of the reach of what was declared around it.
        missing = (
            f' xmlns:{prefix}="{uri}"'
            for prefix, uri in self._declared.items()
            if prefix not in self._root_prefixes
        )
        return text[: self._root_end] + "".join(missing).encode() + text[self._root_end :]

    def _refuse(self, *_: object) -> None:
        raise _UnfitError  # entities stand for text that is elsewhere

    def _declare(self, prefix: str | None, uri: str) -> None:
        if not self._root_end:
            self._root_prefixes.add(prefix)
        elif prefix and not set(uri) & set('"<&'):
            self._declared.setdefault(prefix, uri)

    def _start(self, name: str, _: dict[str, str]) -> None:
        place = self._parser.CurrentByteIndex
        if not self._root_end:
            self._root_end = self._tag_end(place) - 1
        if self._dropped:
            self._dropped += 1
        elif name == _FALLBACK and any(self._has_box[-1:]):
            self._take(place)
            self._dropped = 1
        elif name == _CHOICES:
            self._has_box.append(False)
        elif name in _PARAGRAPHS:
            self._levels[-1].waiting.append([])
        elif name in _BOXES:
            self._has_box = [True] * len(self._has_box)
            self._take(self._tag_end(place))
            self._levels.append(_Level())

    def _end(self, name: str) -> None:
        place = self._parser.CurrentByteIndex
        if self._dropped:
            self._dropped -= 1
            if not self._dropped:
                self._taken = self._tag_end(place)
        elif name == _CHOICES:
            self._has_box.pop()
        elif name in _PARAGRAPHS:
            self._end_paragraph(place)
        elif name in _BOXES:
            self._end_box(place)

    def _end_paragraph(self, place: int) -> None:
        level = self._levels[-1]
        if behind := level.waiting.pop():
            self._take(self._tag_end(place))
            (level.waiting[-1] if level.waiting else level.pieces).extend(behind)

    def _end_box(self, place: int) -> None:
        self._take(max(place, self._taken))  # an empty element ends where it starts
        pieces = self._levels.pop().pieces
        level = self._levels[-1]
        (level.waiting[0] if level.waiting else level.pieces).extend(pieces)

    def _take(self, up_to: int) -> None:
        self._levels[-1].pieces.append(self._part[self._taken : up_to])
        self._taken = up_to

    def _tag_end(self, place: int) -> int:
        """Return where the tag ends that begins at `place`."""
        if self._part.startswith(b"</", place):
            return self._part.index(b">", place) + 1
        tag = _START_TAG.match(self._part, place)
        if tag is None:  # UTF-16
            raise _UnfitError
        return tag.end()


def _moved(part: bytes) -> bytes:
    return _Mover(part).moved()


def _replaced(content: bytes, parts: dict[str, bytes]) -> bytes:
    """Return the archive with other content under some names; nothing else is unpacked."""
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            entry = archive.getinfo(name)
            archive.filelist.remove(entry)
            del archive.NameToInfo[name]
            archive.writestr(name, part)
    return file.getvalue()
