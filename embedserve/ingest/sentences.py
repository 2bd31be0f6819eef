"""Where sentences begin and end: by signs and lines, whatever the text. Knows no grammar.

Rows of a table and lines of code have no sentences; in a long run of them each line is one.
"""

import re
from collections.abc import Iterator

from embedserve.ingest.spans import Span

BLANK_LINE = re.compile(r"\n[ \t]*\n\s*")
SENTENCE = re.compile(r"[.!?…][\"'”’)\]*_]*\s+(?=[^\sa-z])|[。！？]\s*")  # noqa: RUF001
ITEM = re.compile(r"\n(?=[ \t]*(?:[-*+]|\d{1,3}[.)])[ \t])")
HEADING = re.compile(r"#{1,6}[ \t][^\n]*")
"""Of Markdown, all of it."""

MOST_CHARS = 500
"""Of a sentence over several lines; of what is longer each line stands alone."""

# Every branch begins with one of a few characters, which the engine then looks for alone.
_BOUNDARY = re.compile(
    rf"{BLANK_LINE.pattern}|{SENTENCE.pattern}|{ITEM.pattern}|\n(?={HEADING.pattern})"
)
# What a point belongs to: an initial, and what is written before a name or a number.
_SHORTENED = re.compile(
    r"\b(?:[A-HJ-Z]|Mrs?|Ms|Dr|Prof|St|Jr|Sr|vs|etc|e\.g|i\.e|cf|No|Nos|Fig|Figs|Eq|al|ca|approx|Inc|"
    r"Ltd|Co|Corp|U\.S)\.\s+$"
)
_SHORTENED_CHARS = 12


def sentence_spans(text: str) -> Iterator[Span]:
    """Give the sentences of a text in order, without the blanks around them.

    A heading is one, and so is an item of a list.
    """
    start = 0
    for match in _BOUNDARY.finditer(text):
        end = match.end()
        if text[match.start()] == "." and _SHORTENED.search(
            text, max(0, end - _SHORTENED_CHARS), end
        ):
            continue
        yield from _trimmed(text, start, end)
        start = end
    yield from _trimmed(text, start, len(text))


def _trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    """Give a sentence, or the lines of a long one; a heading stands alone."""
    heading = HEADING.match(text, start, end)
    if heading:
        yield Span(start, start + len(heading[0].rstrip()))
        start = heading.end()
    part = text[start:end]
    if len(part) > MOST_CHARS and "\n" in part.strip():
        for line in part.splitlines(keepends=True):
            yield from _trimmed(text, start, start + len(line))
            start += len(line)
    elif stripped := part.strip():
        first = start + part.index(stripped[0])
        yield Span(first, first + len(stripped))
