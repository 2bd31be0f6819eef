"""Reading the sections of a text line by line, as the text comes. Knows no form of text.

A layout sees a text whole, or through a window that moves on: then its last section is open, and
what the lines behind it might still change is not told yet.
"""

from abc import ABC, abstractmethod
from collections import deque

from embedserve.ingest.blocks import Section
from embedserve.ingest.spans import Span

MAX_LINE_CHARS = 65_536
"""A longer line is taken in before its end is there; what it is shows at its beginning."""
LINES_BACK = 2
"""So many lines back may change what they are: a title has its rule below, or around it."""


class Layout(ABC):
    """The sections of one text; offsets count from the start of what is given."""

    @abstractmethod
    def read(self, text: str, *, is_last: bool) -> list[Section]:
        """Take in what is new in `text` and return the sections that were not returned yet.

        Unless `is_last`, the last one may be open: more of it is to come, and it is returned again.
        """

    @abstractmethod
    def keep_from(self, start: int) -> None:
        """Let the open section begin at `start`, what is before it being done with."""

    @abstractmethod
    def move(self, by: int) -> None:
        """Count from `by` characters further on: the text was cut off there."""


class PlainLayout(Layout):
    """One section without structure."""

    def __init__(self) -> None:
        self._start = 0

    def read(self, text: str, *, is_last: bool) -> list[Section]:
        """Return all of it."""
        return [Section(self._start, self._start, len(text), is_open=not is_last)]

    def keep_from(self, start: int) -> None:
        """Begin there."""
        self._start = start

    def move(self, by: int) -> None:
        """Count from there."""
        self._start -= by


class LineLayout(Layout):
    """Hand each line to `line`, and what comes later of one too long to `rest_of_line`."""

    def __init__(self) -> None:
        self._read_to = 0
        self._is_in_line = False
        self._starts: deque[int] = deque(maxlen=LINES_BACK + 1)

    @abstractmethod
    def line(self, text: str, span: Span) -> None:
        """Take in a line with its line feed; one over MAX_LINE_CHARS may lack its end."""

    @abstractmethod
    def rest_of_line(self, span: Span) -> None:
        """Take in what follows of the last line."""

    def _read_lines(self, text: str, *, is_last: bool) -> None:
        while self._read_to < len(text):
            end = text.find("\n", self._read_to) + 1
            is_whole = end > 0
            end = end or len(text)
            span = Span(self._read_to, end)
            if self._is_in_line:
                self.rest_of_line(span)
            elif is_whole or is_last or end - span.start > MAX_LINE_CHARS:
                self._starts.append(span.start)
                self.line(text, span)
            else:
                return
            self._is_in_line = not is_whole
            self._read_to = end

    def _lines_back(self, count: int) -> int:
        """Return where the line starts that is so many before the present one."""
        return self._starts[-1 - count]

    @property
    def _settled_to(self) -> int:
        """Up to where no later line changes what was said of the text."""
        if self._is_in_line or not self._starts:
            return self._read_to
        # The next line is one more.
        return self._starts[-min(LINES_BACK, len(self._starts))]

    def move(self, by: int) -> None:
        """Count from there."""
        self._read_to -= by
        self._starts = deque((start - by for start in self._starts), maxlen=LINES_BACK + 1)
