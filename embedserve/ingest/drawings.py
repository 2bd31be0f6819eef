"""The words in charts, diagrams and the text boxes of sheets, which the library passes by.

They lie in parts of their own, beside the document, slide or sheet that shows them. Runs in the
jailed worker only.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from xml.etree import ElementTree

_PARTS = re.compile(
    r"(?:word|ppt|xl)/(?:charts/chart|diagrams/data)\w*\.xml|xl/drawings/drawing\d+\.xml"
)
_NUMBER = re.compile(r"\d+")


def drawn_lines(content: bytes) -> list[str]:
    """Return the paragraphs in drawings of an Office Open XML file, and names in charts, once each.

    Numbers of a chart are those of a table elsewhere and left out, as is a part that is damaged.
    """
    lines: dict[str, None] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in sorted(filter(_PARTS.fullmatch, archive.namelist()), key=_place):
                lines |= dict.fromkeys(_lines(archive.read(name)))
    except (
        *(zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, RuntimeError),
        *(OSError, NotImplementedError),
    ):
        pass  # the library has read the rest, or says what is wrong with it
    return list(lines)


def _place(name: str) -> tuple[str, int]:
    """Order `drawing10` behind `drawing9`."""
    number = _NUMBER.search(name)
    return _NUMBER.sub("", name), int(number[0]) if number else 0


def _lines(part: bytes) -> Iterator[str]:
    try:
        root = ElementTree.fromstring(part)
    except (ElementTree.ParseError, LookupError, ValueError):
        return
    for element in root.iter():
        name = element.tag.rpartition("}")[2]
        # A paragraph of a drawing, or the names that a chart keeps of its series and categories.
        if name in ("p", "strCache"):
            words = {"p": "t", "strCache": "v"}[name]
            yield from _words(element, words, is_whole=name == "p")


def _words(element: ElementTree.Element, name: str, *, is_whole: bool) -> Iterator[str]:
    found = [one.text or "" for one in element.iter() if one.tag.rpartition("}")[2] == name]
    for line in ["".join(found)] if is_whole else found:
        if text := " ".join(line.split()):
            yield text
