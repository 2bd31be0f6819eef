"""Source code as one section, with its definitions."""

from embedserve.ingest.blocks import Section
from embedserve.ingest.lines import LineLayout
from embedserve.ingest.outline import Outline
from embedserve.ingest.spans import Span


class CodeLayout(LineLayout):
    """The section of source code."""

    def __init__(self) -> None:
        super().__init__()
        self._start = 0
        self._outline = Outline()

    def read(self, text: str, *, is_last: bool) -> list[Section]:
        """Return all that was read, with the definitions in it and around it."""
        self._read_lines(text, is_last=is_last)
        end = len(text) if is_last else self._settled_to
        outline = self._outline.so_far(0 if is_last else len(text))
        start = self._start
        return [Section(start, start, end, outline=tuple(outline), is_open=not is_last)]

    def keep_from(self, start: int) -> None:
        """Begin there."""
        self._start = start

    def move(self, by: int) -> None:
        """Count from there."""
        super().move(by)
        self._outline.move(by, self._start)
        self._start -= by

    def line(self, text: str, span: Span) -> None:
        """Take in a line."""
        self._outline.line(text, span)

    def rest_of_line(self, span: Span) -> None:
        """Let the code reach as far."""
        self._outline.end_of_code = span.end
