"""What reStructuredText's lines say about structure: titles, literal blocks, tables.

Levels follow the order in which the adornments appear, as the format has it.
"""

import re
from collections import deque
from collections.abc import Iterator

from embedserve.ingest.blocks import MAX_HEADING_CHARS, Heading, Section, under_headings
from embedserve.ingest.spans import Span, line_spans

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{2,}$")
_MAX_LINE = 1000


def rst_sections(text: str) -> list[Section]:
    """Split reStructuredText at its titles; literal blocks and tables are kept whole."""
    lines = list(line_spans(text))
    return under_headings(text, list(_headings(text, lines)), deque(_blocks(text, lines)))


def _line(text: str, span: Span) -> str:
    return text[span.start : min(span.end, span.start + _MAX_LINE)].rstrip()


def _headings(text: str, lines: list[Span]) -> Iterator[Heading]:
    styles: list[str] = []
    above, title = "", ""
    for number, span in enumerate(lines):
        line = _line(text, span)
        mark = _ADORNMENT.match(line)
        is_title = title.strip() and (above == line or not title.startswith((" ", "\t")))
        if mark and is_title and len(title) <= min(len(line), MAX_HEADING_CHARS):
            is_boxed = above == line
            style = mark[1] * (2 if is_boxed else 1)
            if style not in styles:
                styles.append(style)
            first = lines[number - (2 if is_boxed else 1)]
            yield Heading(first.start, span.end, styles.index(style) + 1, title.strip())
            above, title = "", ""
            continue
        above, title = title, "" if _ADORNMENT.match(line) and not line.strip() else line


def _blocks(text: str, lines: list[Span]) -> Iterator[Span]:
    """Yield literal blocks (indented below `::` or a directive) and tables drawn with lines."""
    start, indent, is_table = -1, -1, False
    end = 0
    for span in lines:
        line = _line(text, span)
        bare = line.lstrip()
        depth = len(line) - len(bare)
        if (
            start >= 0
            and bare
            and (not bare.startswith(("|", "+")) if is_table else depth <= indent)
        ):
            yield Span(start, end)
            start = -1
        if start < 0 and bare.startswith("+-"):
            start, is_table = span.start, True
        elif start < 0 and (bare.endswith("::") or bare.startswith(".. code")):
            start, indent, is_table = span.start, depth, False
        if bare:
            end = span.end
    if start >= 0:
        yield Span(start, end)
