"""What Markdown's lines say about structure: sections under headings, fences, tables.

Enough of the grammar to cut well; not a parser. One pass over the lines, linear in the text.
"""

import re

from embedserve.ingest.blocks import (
    MAX_COLUMNS_CHARS,
    MAX_ROW_CHARS,
    HeadedSections,
    Heading,
    Section,
    Table,
)
from embedserve.ingest.lines import LineLayout
from embedserve.ingest.spans import Span

MAX_HEADING_CHARS = 200
MAX_FRONT_MATTER_CHARS = 65_536

_LINK = re.compile(r"!?\[([^\[\]]{0,300})\]\([^()\s]{0,2000}\)")
_ROW = re.compile(r"[ \t]*\|")
_RULE = re.compile(r"[ \t]*\|(?:[ \t]*:?-+:?[ \t]*\|)+[ \t]*\n?")
# Only from the first of several spaces on: from each of them it would look at all the rest.
_ANCHOR = re.compile(r"(?<!\s)\s*\{[#.][^{}]{0,200}\}$")
_OPENING = "---\n"


def markdown_sections(text: str) -> list[Section]:
    """Split Markdown at its headings (ATX and setext, not inside fences or front matter)."""
    return MarkdownLayout().read(text, is_last=True)


def front_matter(text: str) -> str:
    """Return the lines between the `---` fences that open a Markdown file, or nothing."""
    end = _front_matter_end(text)
    return text[4:end].rpartition("---")[0] if end else ""


def _front_matter_end(text: str) -> int:
    if not text.startswith(_OPENING):
        return 0
    close = text.find("\n---\n", 3, MAX_FRONT_MATTER_CHARS)
    block = text[4:close] if close > 0 else ""
    # A rule above a paragraph looks the same, but has no `key:` on its first line.
    return close + 5 if re.match(r"[\w-]+:", block) else 0


def _may_go_on(text: str) -> bool:
    """Tell whether more of a text may say where its front matter ends."""
    is_opened = text.startswith(_OPENING[: len(text)])
    return is_opened and len(text) < MAX_FRONT_MATTER_CHARS and not _front_matter_end(text)


class MarkdownLayout(LineLayout):
    """The sections of Markdown."""

    def __init__(self) -> None:
        super().__init__()
        self._sections = HeadedSections()
        self._is_begun = False
        self._fence = ""
        self._fence_start = 0
        self._table_start = self._table_rows = 0
        self._is_row = False
        self._columns = ""  # the first row of the table that is being read
        self._has_columns = False
        self._paragraph: list[Span] = []
        """The lines since the last blank line, heading, table or fence; two are enough."""

    def read(self, text: str, *, is_last: bool) -> list[Section]:
        """Return the sections under headings, fences and tables marked."""
        if not self._is_begun:
            if not is_last and _may_go_on(text):
                return []
            self._read_to = _front_matter_end(text)
            self._is_begun = True
        self._read_lines(text, is_last=is_last)
        block = table = None
        if self._fence:
            block = Span(self._fence_start, len(text))
        elif self._table_rows:
            block = Span(self._table_start, len(text))
            table = self._table(len(text))
        end = len(text) if is_last else self._settled_to
        return self._sections.take(text, end, is_last=is_last, block=block, table=table)

    def keep_from(self, start: int) -> None:
        """Begin there."""
        self._sections.keep_from(start)

    def move(self, by: int) -> None:
        """Count from there."""
        super().move(by)
        self._sections.move(by)
        self._fence_start -= by
        self._table_start -= by
        self._paragraph = [Span(start - by, end - by) for start, end in self._paragraph]

    def rest_of_line(self, span: Span) -> None:
        """Nothing follows from it: what a line is shows at its beginning."""

    def line(self, text: str, span: Span) -> None:
        """Take in a line."""
        # Long lines are neither headings nor fences, and are not worth copying.
        line = text[span.start : min(span.end, span.start + 1000)].strip()
        if self._fence:
            if line.startswith(self._fence) and not line.strip(self._fence[0]):
                self._sections.whole.append(Span(self._fence_start, span.end))
                self._fence = ""
            return
        if self._is_in_table(text, span, line):
            return
        if line.startswith(("```", "~~~")):
            self._open_fence(span, line)
        elif (heading := self._heading(text, span, line)) is not None:
            self._sections.headings.append(heading)
            self._paragraph.clear()
        elif not line:
            self._paragraph.clear()
        elif len(self._paragraph) < 2:
            self._paragraph.append(span)

    def _is_in_table(self, text: str, span: Span, line: str) -> bool:
        if line.startswith("|"):
            if not self._table_rows:
                row = text[span.start : min(span.end, span.start + MAX_ROW_CHARS)]
                self._table_start, self._has_columns = span.start, False
                self._columns = " ".join(row.split())[:MAX_COLUMNS_CHARS]
                self._is_row = _ROW.match(row) is not None
            elif self._table_rows == 1:
                is_rule = _RULE.fullmatch(text, span.start, span.end) is not None
                self._has_columns = self._is_row and is_rule
            self._table_rows += 1
            self._paragraph.clear()
            return True
        if self._table_rows:
            self._sections.whole.append(Span(self._table_start, span.start))
            if table := self._table(span.start):
                self._sections.tables.append(table)
            self._table_rows = 0
        return False

    def _table(self, end: int) -> Table | None:
        return Table(self._table_start, end, self._columns) if self._has_columns else None

    def _open_fence(self, span: Span, line: str) -> None:
        mark = line[: len(line) - len(line.lstrip(line[0]))]
        if mark[0] in line[len(mark) :] and mark[0] == "`":
            return  # code written inline with three ticks
        self._fence, self._fence_start = mark, span.start
        self._paragraph.clear()

    def _heading(self, text: str, span: Span, line: str) -> Heading | None:
        if span.end - span.start > 1000 or text.startswith(("    ", "\t"), span.start):
            return None
        if line.startswith("#"):
            title = line.lstrip("#")
            level = len(line) - len(title)
            if level > 6 or title[:1] not in ("", " ", "\t"):
                return None
            title = title.strip()
            bare = title.rstrip("#")
            title = bare if bare[-1:] in ("", " ") else title
            return Heading(span.start, span.end, level, plain(title))
        # A one-line paragraph with a line of = or - under it; longer ones are seldom meant so.
        if len(line) >= 2 and line[0] in "=-" and not line.strip(line[0]):
            above = self._paragraph
            if len(above) == 1 and above[0].end == span.start:
                title = text[above[0].start : above[0].end].strip()
                if len(title) <= MAX_HEADING_CHARS and title[0] not in "-*+>=":
                    level = 1 if line[0] == "=" else 2
                    return Heading(above[0].start, span.end, level, plain(title))
        return None


def plain(title: str) -> str:
    """Drop link targets, anchors and emphasis from a heading that is shown as a label."""
    title = _ANCHOR.sub("", _LINK.sub(r"\1", title))
    return title.replace("**", "").replace("`", "").strip()[:MAX_HEADING_CHARS]
