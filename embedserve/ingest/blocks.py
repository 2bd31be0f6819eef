"""What Markdown's lines say about structure: sections under headings, fences, tables.

Enough of the grammar to cut well; not a parser. One pass over the lines, linear in the text.
"""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from embedserve.ingest.outline import Definition
from embedserve.ingest.spans import Span, line_spans

MAX_HEADING_CHARS = 200
# Names of a path that are kept: more say little, and a hostile file would repeat a thousand of
# them for each of its chunks.
OUTER_NAMES, INNER_NAMES = 2, 4

_LINK = re.compile(r"!?\[([^\[\]]{0,300})\]\([^()\s]{0,2000}\)")
_ROW = re.compile(r"[ \t]*\|")
_RULE = re.compile(r"[ \t]*\|(?:[ \t]*:?-+:?[ \t]*\|)+[ \t]*")
# Only from the first of several spaces on: from each of them it would look at all the rest.
_ANCHOR = re.compile(r"(?<!\s)\s*\{[#.][^{}]{0,200}\}$")


@dataclass(frozen=True)
class Section:
    """A heading with what follows it up to the next heading. `text[start:body]` is headings."""

    start: int
    body: int
    end: int
    heading: tuple[str, ...] = ()
    whole: tuple[Span, ...] = ()
    """Fences and tables: not to be cut when they fit."""
    tables: tuple[Span, ...] = ()
    """Those of `whole` that begin with a row of column names."""
    outline: tuple[Definition, ...] = ()
    """The definitions of source code."""
    kind: str = "markdown"
    """A row of `layouts.LAYOUTS`."""


@dataclass(frozen=True)
class Heading:
    """A title with its lines, and how deep it is."""

    start: int
    end: int
    level: int
    title: str


@dataclass
class _Reading:
    """Where the pass stands."""

    text: str
    headings: list[Heading] = field(default_factory=list)
    whole: deque[Span] = field(default_factory=deque)
    fence: str = ""
    fence_start: int = 0
    table_start: int = -1
    paragraph: list[Span] = field(default_factory=list)
    """The lines since the last blank line, heading, table or fence; two are enough."""


def markdown_sections(text: str) -> list[Section]:
    """Split Markdown at its headings (ATX and setext, not inside fences or front matter).

    A heading without a body opens the section that follows it, so the sections cover the text.
    """
    reading = _Reading(text)
    start = _front_matter_end(text)
    for line in line_spans(text, start):
        _read_line(reading, line)
    if reading.fence:  # never closed: it runs to the end
        reading.whole.append(Span(reading.fence_start, len(text)))
    elif reading.table_start >= 0:
        reading.whole.append(Span(reading.table_start, len(text)))
    return under_headings(text, reading.headings, reading.whole)


def front_matter(text: str) -> str:
    """Return the lines between the `---` fences that open a Markdown file, or nothing."""
    end = _front_matter_end(text)
    return text[4:end].rpartition("---")[0] if end else ""


def _front_matter_end(text: str) -> int:
    if not text.startswith("---\n"):
        return 0
    close = text.find("\n---\n", 3)
    block = text[4:close] if close > 0 else ""
    # A rule above a paragraph looks the same, but has no `key:` on its first line.
    return close + 5 if re.match(r"[\w-]+:", block) else 0


def _read_line(reading: _Reading, span: Span) -> None:
    # Long lines are neither headings nor fences, and are not worth copying.
    line = reading.text[span.start : min(span.end, span.start + 1000)].strip()
    if reading.fence:
        if line.startswith(reading.fence) and not line.strip(reading.fence[0]):
            reading.whole.append(Span(reading.fence_start, span.end))
            reading.fence = ""
        return
    if _is_in_table(reading, span, line):
        return
    if line.startswith(("```", "~~~")):
        _open_fence(reading, span, line)
    elif (heading := _heading(reading, span, line)) is not None:
        reading.headings.append(heading)
        reading.paragraph.clear()
    elif not line:
        reading.paragraph.clear()
    elif len(reading.paragraph) < 2:
        reading.paragraph.append(span)


def _is_in_table(reading: _Reading, span: Span, line: str) -> bool:
    if line.startswith("|"):
        if reading.table_start < 0:
            reading.table_start = span.start
        reading.paragraph.clear()
        return True
    if reading.table_start >= 0:
        reading.whole.append(Span(reading.table_start, span.start))
        reading.table_start = -1
    return False


def _open_fence(reading: _Reading, span: Span, line: str) -> None:
    mark = line[: len(line) - len(line.lstrip(line[0]))]
    if mark[0] in line[len(mark) :] and mark[0] == "`":
        return  # code written inline with three ticks
    reading.fence, reading.fence_start = mark, span.start
    reading.paragraph.clear()


def _heading(reading: _Reading, span: Span, line: str) -> Heading | None:
    text = reading.text
    if span.end - span.start > 1000 or text.startswith(("    ", "\t"), span.start):
        return None
    if line.startswith("#"):
        title = line.lstrip("#")
        level = len(line) - len(title)
        if level > 6 or title[:1] not in ("", " ", "\t"):
            return None
        title = title.strip()
        bare = title.rstrip("#")
        return Heading(span.start, span.end, level, bare if bare[-1:] in ("", " ") else title)
    # A one-line paragraph with a line of = or - under it; longer paragraphs are seldom meant so.
    if len(line) >= 2 and line[0] in "=-" and not line.strip(line[0]):
        above = reading.paragraph
        if len(above) == 1 and above[0].end == span.start:
            title = text[above[0].start : above[0].end].strip()
            if len(title) <= MAX_HEADING_CHARS and title[0] not in "-*+>=":
                return Heading(above[0].start, span.end, 1 if line[0] == "=" else 2, title)
    return None


def under_headings(text: str, headings: list[Heading], whole: deque[Span]) -> list[Section]:
    """Return the sections between headings, each with the path to its own and its blocks."""
    sections: list[Section] = []
    stack: list[_Above] = []
    first = headings[0].start if headings else len(text)
    if text[:first].strip():
        sections.append(_section(text, Section(0, 0, first), whole))
    open_start: int | None = None
    for number, heading in enumerate(headings):
        while stack and stack[-1].level >= heading.level:
            stack.pop()
        stack.append(_Above(heading.level, _plain(heading.title)))
        end = headings[number + 1].start if number + 1 < len(headings) else len(text)
        start = heading.start if open_start is None else open_start
        is_empty = not text[heading.end : end].strip()
        if is_empty and number + 1 < len(headings):
            open_start = start
            continue
        open_start = None
        path = short_path([above.title for above in stack if above.title])
        section = Section(start, min(heading.end, end), end, path)
        sections.append(_section(text, section, whole))
    return sections


@dataclass(frozen=True)
class _Above:
    level: int
    title: str


def short_path(names: Sequence[str]) -> tuple[str, ...]:
    """Return the outermost and innermost of the names that lead to a place."""
    if len(names) <= OUTER_NAMES + INNER_NAMES:
        return tuple(names)
    return (*names[:OUTER_NAMES], *names[-INNER_NAMES:])


def _section(text: str, bare: Section, whole: deque[Span]) -> Section:
    kept = _within(whole, bare.start, bare.end)
    tables = tuple(span for span in kept if _has_column_names(text, span))
    return replace(bare, whole=kept, tables=tables)


def _has_column_names(text: str, table: Span) -> bool:
    second = text.find("\n", table.start, table.end) + 1
    if not second or not _ROW.match(text, table.start):
        return False
    end = text.find("\n", second, table.end)
    return _RULE.fullmatch(text, second, end if end >= 0 else table.end) is not None


def _within(spans: deque[Span], start: int, end: int) -> tuple[Span, ...]:
    # Sections come in order, so what ends before this one is never asked for again.
    while spans and spans[0].end <= start:
        spans.popleft()
    found = []
    for span in spans:
        if span.start >= end:
            break
        found.append(span)
    return tuple(found)


def _plain(title: str) -> str:
    """Drop link targets, anchors and emphasis from a heading that is shown as a label."""
    title = _ANCHOR.sub("", _LINK.sub(r"\1", title))
    return title.replace("**", "").replace("`", "").strip()[:MAX_HEADING_CHARS]
