"""OpenDocument texts: headings, paragraphs, lists, tables, notes and what hangs in frames.

The extraction library drops footnotes, loses frames that hang at a page or in a cell, and joins
the paragraphs of a cell without a blank. Runs in the jailed worker only.
"""

import re
from collections.abc import Iterator
from itertools import chain
from xml.etree.ElementTree import Element

from embedserve.ingest import formats
from embedserve.ingest.kinds import FileKind
from embedserve.ingest.readers import Page, Read

_NAMES = "{urn:oasis:names:tc:opendocument:xmlns:"
_OFFICE, _TEXT = f"{_NAMES}office:1.0}}", f"{_NAMES}text:1.0}}"
_TABLE, _DRAW = f"{_NAMES}table:1.0}}", f"{_NAMES}drawing:1.0}}"
_STYLE = f"{_NAMES}style:1.0}}"
_SHOWN = tuple(f"{_NAMES}svg-compatible:1.0}}{name}" for name in ("title", "desc"))
"""What a picture says of itself."""
_TITLE = "{http://purl.org/dc/elements/1.1/}title"

_HEADING, _PARAGRAPH, _LIST = f"{_TEXT}h", f"{_TEXT}p", f"{_TEXT}list"
_SPACES, _TAB, _BREAK = f"{_TEXT}s", f"{_TEXT}tab", f"{_TEXT}line-break"
_CELLS = (f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell")
# Deleted text, and what controls and fields would be filled from.
_UNSEEN = (
    *(f"{_TEXT}tracked-changes", f"{_TEXT}sequence-decls", f"{_TEXT}variable-decls"),
    *(f"{_TEXT}user-field-decls", f"{_OFFICE}forms", f"{_OFFICE}scripts"),
)
# In the middle of a sentence; read behind its paragraph.
_APART = (f"{_TEXT}note", f"{_OFFICE}annotation")
_NO_BOX = (f"{_DRAW}a",)  # a link around a picture or words
_HEADERS = tuple(f"{_STYLE}{name}" for name in ("header", "header-first", "header-left"))
_FOOTERS = tuple(f"{_STYLE}{name}" for name in ("footer", "footer-first", "footer-left"))
MAX_COLUMNS = 256
MAX_SPACES = 100
MAX_LEVEL = 6
_WHITE = re.compile(r"[ \t\r\n]+")


def read_odt(content: bytes, kind: FileKind) -> Read:
    """Read a text document, the headers of its pages first and their footers last."""
    body = formats.odf_part(content, "content.xml")
    styles = formats.odf_part(content, "styles.xml", is_needed=False)
    about = formats.odf_part(content, "meta.xml", is_needed=False)
    blocks = chain(_repeated(styles, _HEADERS), _blocks(body), _repeated(styles, _FOOTERS))
    title = about.findtext(f".//{_TITLE}") if about is not None else None
    return Read([Page(None, "\n\n".join(blocks))], kind.kind, title or "")


def _repeated(styles: Element | None, tags: tuple[str, ...]) -> Iterator[str]:
    """Give what stands on every page, once however many kinds of page there are."""
    if styles is not None:
        found = (block for one in styles.iter() if one.tag in tags for block in _blocks(one))
        yield from dict.fromkeys(found)


def _blocks(element: Element) -> Iterator[str]:
    """Give the headings, paragraphs, lists and tables in an element, each in Markdown."""
    for child in element:
        if child.tag in (_PARAGRAPH, _HEADING):
            yield from _paragraph(child)
        elif child.tag == _LIST and next(child.iter(_HEADING), None) is None:
            yield from _list(child)
        elif child.tag == f"{_TABLE}table":
            yield from _table(child)
        elif child.tag in _SHOWN and (words := " ".join((child.text or "").split())):
            yield words
        elif child.tag not in _UNSEEN:
            yield from _blocks(child)


def _paragraph(element: Element) -> Iterator[str]:
    """Give a paragraph or heading, and behind it what hangs at it."""
    apart: list[Element] = []
    text = "".join(_inline(element, apart)).strip()
    if text and element.tag == _HEADING:
        level = element.get(f"{_TEXT}outline-level", "1")
        marks = "#" * min(int(level) if level.isdecimal() else 1, MAX_LEVEL)
        text = f"{marks or '#'} {' '.join(text.split())}"
    if text:
        yield text
    for one in apart:
        yield from _blocks(one)


def _inline(element: Element, apart: list[Element]) -> Iterator[str]:
    """Give the words of a paragraph; what hangs at it is put into `apart`."""
    yield _WHITE.sub(" ", element.text or "")
    for child in element:
        is_box = child.tag.startswith(_DRAW) and child.tag not in _NO_BOX
        if is_box or child.tag in _APART:
            apart.append(child)
        elif child.tag == _SPACES:
            count = child.get(f"{_TEXT}c", "1")
            yield " " * min(int(count) if count.isdecimal() else 1, MAX_SPACES)
        elif child.tag == _TAB:
            yield "\t"
        elif child.tag == _BREAK:
            yield "\n"
        elif child.tag not in _UNSEEN:
            yield from _inline(child, apart)
        yield _WHITE.sub(" ", child.tail or "")


def _list(element: Element) -> Iterator[str]:
    lines: list[str] = []
    for item in element:
        first, *others = list(_blocks(item)) or [""]
        if first or others:
            lines += _indented(f"- {first}" if not first.startswith("- ") else first)
            lines += [f"  {line}" for block in others for line in block.splitlines()]
    if lines:
        yield "\n".join(lines)


def _indented(item: str) -> list[str]:
    first, *others = item.splitlines()
    return [first, *(f"  {line}" for line in others)]


def _table(element: Element) -> Iterator[str]:
    rows = [row for row in (_row(one) for one in _rows(element)) if any(row)]
    if not rows:
        return
    width = max(map(len, rows))
    lines = ["| " + " | ".join(row + [""] * (width - len(row))) + " |" for row in rows]
    yield "\n".join([lines[0], "| --- " * width + "|", *lines[1:]])


def _rows(element: Element) -> Iterator[Element]:
    """Give the rows of a table, through the groups that they are in."""
    for child in element:
        if child.tag == f"{_TABLE}table-row":
            yield child
        elif child.tag not in _CELLS:
            yield from _rows(child)


def _row(element: Element) -> list[str]:
    cells: list[str] = []
    for cell in element:
        if cell.tag in _CELLS:
            words = " ".join(word for block in _blocks(cell) for word in block.split())
            count = cell.get(f"{_TABLE}number-columns-repeated", "1")
            times = int(count) if count.isdecimal() else 1
            cells += [words.replace("|", "\\|")] * min(times, MAX_COLUMNS - len(cells))
    while cells and not cells[-1]:
        cells.pop()
    return cells
