"""A plot of bars with intervals as SVG, which browsers and Markdown viewers draw. Nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

LEFT, WIDTH, RIGHT = 260, 420, 60
LINE, TITLE, GAP = 22, 28, 14
BAR = 14


@dataclass(frozen=True)
class Bar:
    """One value, 0..1, and the interval that it lies in."""

    label: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """Bars with a title."""

    title: str
    bars: Sequence[Bar]


def bar_chart(groups: Sequence[Group]) -> str:
    """Return an SVG document; lengths are of 0..1, the values stand at the right."""
    parts, y = [], GAP
    for group in groups:
        parts.append(_text(GAP, y + 16, group.title, extra=' font-weight="bold"'))
        y += TITLE
        for bar in group.bars:
            parts += _bar(bar, y)
            y += LINE
        y += GAP
    width = LEFT + WIDTH + RIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" '
        f'viewBox="0 0 {width} {y}" font-family="sans-serif" font-size="12">'
        f'<rect width="{width}" height="{y}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _bar(bar: Bar, y: int) -> list[str]:
    middle = y + BAR / 2
    low, high = _x(bar.low), _x(bar.high)
    return [
        _text(LEFT - 8, y + 11, bar.label, extra=' text-anchor="end"'),
        f'<rect x="{LEFT}" y="{y}" width="{WIDTH}" height="{BAR}" fill="#eee"/>',
        f'<rect x="{LEFT}" y="{y}" width="{_x(bar.value) - LEFT:.1f}" height="{BAR}" '
        'fill="#4a7ebb"/>',
        f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {y + 3}v8M{high:.1f} {y + 3}v8" '
        'stroke="#222" fill="none"/>',
        _text(LEFT + WIDTH + 8, y + 11, f"{bar.value:.3f}"),
    ]


def _x(value: float) -> float:
    return LEFT + WIDTH * min(max(value, 0.0), 1.0)


def _text(x: int, y: int, text: str, *, extra: str = "") -> str:
    return f'<text x="{x}" y="{y}"{extra}>{escape(text)}</text>'
