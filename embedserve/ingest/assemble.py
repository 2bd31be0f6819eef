"""From pages as they were read to one clean text with its parts marked. Runs in the worker only."""

import os
from dataclasses import dataclass, field
from typing import NamedTuple

from embedserve.ingest import decode
from embedserve.ingest.layouts import sections_of
from embedserve.ingest.readers import Page, Read, refusal

# A title is looked for at the top only.
TITLE_SEARCH_CHARS = 20_000
# What programs write into the title field of their own accord.
_NO_TITLES = {
    "untitled",
    "anonymous",
    "(anonymous)",
    "unspecified",
    "(unspecified)",
    "powerpoint presentation",
    "microsoft word document",
    "slide 1",
}
_GAP = "\n\n"


class MemberPlace(NamedTuple):
    """A row of what becomes `types.MemberSpan`; a tuple, as JSON takes it."""

    name: str
    kind: str
    start: int
    end: int


@dataclass
class Document:
    """A text under way, with where its pages and members lie; fields as JSON takes them."""

    max_chars: int
    texts: list[str] = field(default_factory=list)
    length: int = 0
    pages: list[list[int]] = field(default_factory=list)
    members: list[MemberPlace] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it."""
        return _GAP.join(self.texts)

    def add(self, text: str) -> int:
        """Append a piece behind a blank line and return where it starts."""
        start = self.length
        self.texts.append(text)
        self.length += len(text) + len(_GAP)
        if self.length - len(_GAP) > self.max_chars:
            raise refusal("text_too_large", f"Its text has over {self.max_chars} characters.")
        return start

    def add_page(self, page: Page) -> None:
        """Append a page, cleaned, unless there are no words on it."""
        text = decode.clean(page.text).rstrip("\n")
        if page.number is not None:
            text = text.lstrip("\n")  # but a whole file keeps the offsets of its characters
        # Rules and bullets alone, such as the line between a slide and its missing notes.
        if not any(map(str.isalnum, text)):
            return
        start = self.add(text)
        if page.number is not None:
            self.pages.append([page.number, start, start + len(text)])


def document(read: Read, max_chars: int) -> Document:
    """Join the pages of a document, or the members of an archive, each below its name."""
    made = Document(max_chars)
    for page in read.pages:
        made.add_page(page)
    for one in read.inside:
        name = " ".join(decode.clean(one.name).split())
        start = made.add(f"# {name}")
        for page in one.read.pages:
            made.add_page(page)
        made.members.append(MemberPlace(name, one.read.kind, start, made.length - len(_GAP)))
    return made


def title(read: Read, made: Document, name: str) -> str:
    """Return what the document calls itself, its first heading, or the name of its file."""
    text = made.text[: made.members[0].start] if made.members else made.text
    own = " ".join(decode.clean(read.title).split())
    if own and own.casefold() not in _NO_TITLES:
        return own
    # The first heading of a spreadsheet is the name of its first sheet.
    is_table = name.lower().endswith((".xlsx", ".xls", ".ods", ".csv", ".tsv"))
    if read.kind in ("markdown", "rst") and not is_table:
        for section in sections_of(text[:TITLE_SEARCH_CHARS], read.kind):
            if section.heading:
                return section.heading[0]
    return os.path.splitext(name)[0] if read.kind != "code" else name
