"""What reStructuredText's lines say about structure: titles, literal blocks, tables.

Levels follow the order in which the adornments appear, as the format has it.
"""

import re

from embedserve.ingest.blocks import HeadedSections, Heading, Section
from embedserve.ingest.lines import LineLayout
from embedserve.ingest.markdown import MAX_HEADING_CHARS, plain
from embedserve.ingest.spans import Span

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1{2,}$")
_MAX_LINE = 1000


def rst_sections(text: str) -> list[Section]:
    """Split reStructuredText at its titles; literal blocks and tables are kept whole."""
    return RstLayout().read(text, is_last=True)


class RstLayout(LineLayout):
    """The sections of reStructuredText."""

    def __init__(self) -> None:
        super().__init__()
        self._sections = HeadedSections()
        self._styles: list[str] = []
        self._above = self._title = ""  # the two lines before this one
        self._block = _Block()

    def read(self, text: str, *, is_last: bool) -> list[Section]:
        """Return the sections under titles, literal blocks and drawn tables marked."""
        self._read_lines(text, is_last=is_last)
        end, block = self._settled_to, None
        if self._block.start is not None:
            block = Span(self._block.start, len(text))
        if is_last:
            end, block = len(text), self._block.span
        return self._sections.take(text, end, is_last=is_last, block=block, table=None)

    def keep_from(self, start: int) -> None:
        """Begin there."""
        self._sections.keep_from(start)

    def move(self, by: int) -> None:
        """Count from there."""
        super().move(by)
        self._sections.move(by)
        self._block.move(by)

    def line(self, text: str, span: Span) -> None:
        """Take in a line."""
        line = text[span.start : min(span.end, span.start + _MAX_LINE)].rstrip()
        self._look_for_title(line, span)
        self._look_for_block(line, span)

    def rest_of_line(self, span: Span) -> None:
        """Let a block reach as far."""
        self._block.end = span.end

    def _look_for_title(self, line: str, span: Span) -> None:
        mark = _ADORNMENT.match(line)
        title, above = self._title, self._above
        is_title = title.strip() and (above == line or not title.startswith((" ", "\t")))
        if mark and is_title and len(title) <= min(len(line), MAX_HEADING_CHARS):
            is_boxed = above == line
            style = mark[1] * (2 if is_boxed else 1)
            if style not in self._styles:
                self._styles.append(style)
            first = self._lines_back(2 if is_boxed else 1)
            level = self._styles.index(style) + 1
            self._sections.headings.append(Heading(first, span.end, level, plain(title.strip())))
            self._above = self._title = ""
            return
        self._above = title
        self._title = "" if _ADORNMENT.match(line) and not line.strip() else line

    def _look_for_block(self, line: str, span: Span) -> None:
        """Find literal blocks (indented below `::` or a directive) and tables drawn with lines."""
        bare = line.lstrip()
        depth = len(line) - len(bare)
        if self._block.is_ended_by(bare, depth):
            self._sections.whole.append(self._block.closed())
        if self._block.start is None and bare.startswith("+-"):
            self._block.start, self._block.is_table = span.start, True
        elif self._block.start is None and (bare.endswith("::") or bare.startswith(".. code")):
            self._block.start, self._block.is_table = span.start, False
            self._block.indent = depth
        if bare:
            self._block.end = span.end


class _Block:
    """A block that is being read."""

    def __init__(self) -> None:
        self.start: int | None = None
        self.end = 0
        self.indent = -1
        self.is_table = False

    @property
    def span(self) -> Span | None:
        return None if self.start is None else Span(self.start, self.end)

    def is_ended_by(self, bare: str, depth: int) -> bool:
        if self.start is None or not bare:
            return False
        return not bare.startswith(("|", "+")) if self.is_table else depth <= self.indent

    def closed(self) -> Span:
        span = Span(self.start or 0, self.end)
        self.start = None
        return span

    def move(self, by: int) -> None:
        self.start = None if self.start is None else self.start - by
        self.end -= by
