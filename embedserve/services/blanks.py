"""What stood between two chunks, which keep no blanks around them; their lines tell most of it."""

from typing import Protocol

from embedserve.types import LineSpan

MOST_LINES = 2
"""One empty line: a text may have millions between two of its words."""


class Piece(Protocol):
    """What is needed of a chunk."""

    @property
    def start(self) -> int: ...  # noqa: D102  the attribute of that name

    @property
    def end(self) -> int: ...  # noqa: D102

    @property
    def lines(self) -> LineSpan | None: ...  # noqa: D102


def blanks_between(former: Piece, piece: Piece) -> str:
    """Return line ends or a space for what lay between two chunks that follow each other.

    Nothing where nothing lay: a long word may have been cut there.
    """
    gap = piece.start - former.end
    lines = piece.lines.start - former.lines.end if piece.lines and former.lines else gap
    return "\n" * min(lines, gap, MOST_LINES) or " " * (gap > 0)
