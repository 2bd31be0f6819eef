"""Where pieces of a text lie, and the lines of one."""

from collections.abc import Iterator
from typing import NamedTuple


class Span(NamedTuple):
    """Character offsets, end exclusive."""

    start: int
    end: int


def line_spans(text: str, start: int = 0) -> Iterator[Span]:
    """Yield the lines from `start` on, each with its line feed."""
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield Span(start, end)
        start = end
