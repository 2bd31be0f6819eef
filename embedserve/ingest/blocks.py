"""Sections under headings, and the blocks in them that had better stay whole."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from embedserve.ingest.outline import Definition
from embedserve.ingest.spans import Span

# Names of a path that are kept: more say little, and a hostile file would repeat a thousand of
# them for each of its chunks.
OUTER_NAMES, INNER_NAMES = 2, 4
MAX_COLUMNS_CHARS = 300
# Where they are looked for; the cells may be padded with spaces.
MAX_ROW_CHARS = 4_000


class Table(NamedTuple):
    """A table with a row of column names; not clipped to what a section holds of it."""

    start: int
    end: int
    columns: str
    """That row, on one line."""


Block = TypeVar("Block", Span, Table)


@dataclass(frozen=True)
class Section:
    """A heading with what follows it up to the next heading. `text[start:body]` is headings."""

    start: int
    body: int
    end: int
    heading: tuple[str, ...] = ()
    whole: tuple[Span, ...] = ()
    """Fences and tables: not to be cut when they fit."""
    tables: tuple[Table, ...] = ()
    """Those of `whole` that begin with a row of column names."""
    outline: tuple[Definition, ...] = ()
    """The definitions of source code."""
    kind: str = "markdown"
    """A row of `layouts.LAYOUTS`."""
    is_open: bool = False
    """Whether it goes on behind `end`, in text that is still to come."""


@dataclass(frozen=True)
class Heading:
    """A title with its lines, and how deep it is."""

    start: int
    end: int
    level: int
    title: str
    """As it is shown; may be empty."""


class HeadedSections:
    """Make sections of headings and blocks, which come in order."""

    def __init__(self) -> None:
        self.headings: deque[Heading] = deque()
        """Those that were found since the last section was taken."""
        self.whole: deque[Span] = deque()
        self.tables: deque[Table] = deque()
        self._start = self._body = 0
        self._path: tuple[str, ...] = ()
        self._above: list[Heading] = []
        self._is_cut = False  # a part of the section is done with

    def take(
        self, text: str, end: int, *, is_last: bool, block: Span | None, table: Table | None
    ) -> list[Section]:
        """Return the sections up to `end`, the last of them open unless `is_last`.

        A heading without a body opens the section that follows it, so the sections cover the
        text. `block` and `table` are under way where the lines end.
        """
        self.whole.extend([block] if block else [])
        self.tables.extend([table] if table else [])
        taken = [*self._closed(text), *self._rest(text, end, is_last=is_last)]
        if block:
            self.whole.pop()
        if table:
            self.tables.pop()
        return taken

    def _closed(self, text: str) -> Iterator[Section]:
        while self.headings:
            heading = self.headings.popleft()
            if self._is_cut or text[self._body : heading.start].strip():
                yield self._section(heading.start)
                self._start, self._is_cut = heading.start, False
            elif not self._above:
                self._start = heading.start
            self._enter(heading)

    def _rest(self, text: str, end: int, *, is_last: bool) -> Iterator[Section]:
        if not is_last and end > self._start:
            yield self._section(end, is_open=True)
        elif is_last and (self._above or self._is_cut or text[self._start : end].strip()):
            yield self._section(end)

    def keep_from(self, start: int) -> None:
        """Let the open section begin at `start`."""
        self._is_cut |= start > self._start
        self._start = max(self._start, start)

    def move(self, by: int) -> None:
        """Count from `by` characters further on."""
        self._start -= by
        self._body -= by
        self.whole = deque(Span(start - by, end - by) for start, end in self.whole)
        self.tables = deque(Table(one.start - by, one.end - by, one.columns) for one in self.tables)

    def _enter(self, heading: Heading) -> None:
        while self._above and self._above[-1].level >= heading.level:
            self._above.pop()
        self._above.append(heading)
        self._body = heading.end
        self._path = short_path([above.title for above in self._above if above.title])

    def _section(self, end: int, *, is_open: bool = False) -> Section:
        body = min(max(self._body, self._start), end)
        return Section(
            self._start,
            body,
            end,
            self._path,
            _within(self.whole, self._start, end),
            _within(self.tables, self._start, end),
            is_open=is_open,
        )


def short_path(names: Sequence[str]) -> tuple[str, ...]:
    """Return the outermost and innermost of the names that lead to a place."""
    if len(names) <= OUTER_NAMES + INNER_NAMES:
        return tuple(names)
    return (*names[:OUTER_NAMES], *names[-INNER_NAMES:])


def _within(blocks: deque[Block], start: int, end: int) -> tuple[Block, ...]:
    # Sections come in order, so what ends before this one is never asked for again.
    while blocks and blocks[0].end <= start:
        blocks.popleft()
    found = []
    for block in blocks:
        if block.start >= end:
            break
        found.append(block)
    return tuple(found)
