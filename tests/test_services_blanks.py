"""Blanks between chunks are told again as far as lines tell them, and never without a bound."""

import pytest

from embedserve.services.blanks import blanks_between
from embedserve.types import LineSpan, TextPiece


def piece(start: int, end: int, lines: tuple[int, int] | None) -> TextPiece:
    return TextPiece("x" * (end - start), start, end, None, LineSpan(*lines) if lines else None)


@pytest.mark.parametrize(
    ("gap", "first", "second", "expected"),
    [
        (0, (1, 1), (1, 1), ""),  # a long word, cut
        (1, (1, 1), (1, 1), " "),
        (3, (1, 1), (1, 1), " "),
        (1, (1, 1), (2, 2), "\n"),
        (2, (1, 1), (3, 3), "\n\n"),
        (9_000_000, (1, 1), (9_000_001, 9_000_001), "\n\n"),
        (0, None, None, ""),
        (1, None, None, "\n"),
        (7, None, (3, 3), "\n\n"),
    ],
)
def test_blanks(
    gap: int, first: tuple[int, int] | None, second: tuple[int, int] | None, expected: str
) -> None:
    assert blanks_between(piece(0, 5, first), piece(5 + gap, 10 + gap, second)) == expected
