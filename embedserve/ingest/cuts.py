"""Where one part of a text may be cut, and where it is: strongest boundaries first.

Works on tokens that were measured once; knows no file and no model.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedserve.ingest.blocks import Section
from embedserve.ingest.sentences import BLANK_LINE, ITEM, SENTENCE
from embedserve.ingest.spans import Span

# A boundary that would leave the chunk emptier than this share is passed over for a weaker one.
MIN_FILL = 0.25
# WordPiece makes one token of a word over 100 characters, however long. Such a token is counted
# as one for each 16 characters, so that a blob of base64 does not become a chunk of megabytes.
LONG_TOKEN_CHARS, LONG_TOKEN_STEP = 32, 16
# Whitespace to Python, and nothing at all to a tokenizer, which joins what stands around it.
NO_SPACE = frozenset("\x0b\x0c\x1c\x1d\x1e\x1f\x85")

_LINE = re.compile(r"\n+")
_CELL = re.compile(r"[ \t]\|[ \t]")
_FIELD = re.compile(r",[ \t]*")
_WORD = re.compile(r"\s+")

Positions = NDArray[np.int64]
"""(n,) int64, ascending: characters before which a text may be cut."""


@dataclass(frozen=True)
class _Measured:
    """One part with its tokens; every offset here counts from the start of the part."""

    text: str
    body: int
    content: int
    """Where the first word behind the headings stands."""
    starts: Positions
    ends: Positions
    max_tokens: int

    def tokens_between(self, start: int, end: int) -> int:
        return int(np.searchsorted(self.starts, end) - np.searchsorted(self.starts, start))


def part_spans(
    text: str, part: Section, tokens: NDArray[np.int64], max_tokens: int
) -> Iterator[Span]:
    """Yield spans of the text that fill the part; `tokens` are offsets from its start."""
    tokens = _split_long(tokens)
    spans: Iterable[Span] = [Span(0, part.end - part.start)]
    if len(tokens) > max_tokens:
        body = part.body - part.start
        below = text[part.body : part.end]
        measured = _Measured(
            text[part.start : part.end],
            body,
            body + len(below) - len(below.lstrip()),
            tokens[:, 0],
            np.maximum.accumulate(tokens[:, 1]),
            max_tokens,
        )
        spans = _filled(measured, _levels(measured, _Blocks.of(part), part.kind))
    for start, end in spans:
        yield Span(part.start + start, part.start + end)


def _filled(part: _Measured, levels: Sequence[Positions]) -> Iterator[Span]:
    start = first = 0
    while first + part.max_tokens < len(part.starts):
        # The first character of the first token that does not fit any more.
        limit = max(int(part.starts[first + part.max_tokens]), start + 1)
        enough = int(part.starts[first + int(part.max_tokens * MIN_FILL)])
        end = _best_cut(levels, _after_heading(part, start, limit), enough, limit)
        yield Span(start, end)
        start = end
        # A token that the cut goes through counts on both sides.
        first = int(np.searchsorted(part.ends, start, side="right"))
    yield Span(start, len(part.text))


def _after_heading(part: _Measured, start: int, limit: int) -> int:
    """Return the last place where a cut is out of the question: a heading needs some body."""
    if start >= part.body or part.body >= limit:
        return start
    return part.body


def _best_cut(levels: Sequence[Positions], above: int, enough: int, limit: int) -> int:
    for least in (max(above, enough - 1), above):
        for positions in levels:
            place = int(np.searchsorted(positions, limit, side="right")) - 1
            if place >= 0 and positions[place] > least:
                return int(positions[place])
    return limit


@dataclass(frozen=True)
class _Blocks:
    """What had better stay whole in one part, in offsets from its start."""

    whole: list[Span]
    tables: set[int]
    """Ends of those of `whole` that are tables."""
    definitions: list[Span]

    @classmethod
    def of(cls, part: Section) -> "_Blocks":
        first = bisect_right(part.outline, part.start, key=lambda one: one.line)
        last = bisect_right(part.outline, part.end - 1, key=lambda one: one.line)
        return cls(
            [Span(a - part.start, b - part.start) for a, b in part.whole],
            {min(span.end, part.end) - part.start for span in part.tables},
            [
                Span(max(one.start - part.start, 0), min(one.end, part.end) - part.start)
                for one in part.outline[max(first - 1, 0) : last]
            ],
        )


def _levels(part: _Measured, blocks: _Blocks, kind: str) -> list[Positions]:
    """Return the places to cut at, strongest kind first."""
    lines, words = _ends(_LINE, part.text), _ends(_WORD, part.text)
    if kind == "rows":
        rows = [span for span in _rows(part.text, lines) if _fits(part, span)]
        return [_outside(level, rows) for level in (lines, _ends(_FIELD, part.text), words)]
    if kind == "code":
        return _code_levels(part, blocks.definitions, lines, words)
    blanks = _ends(BLANK_LINE, part.text)
    sentences = _merged(_ends(SENTENCE, part.text), _ends(ITEM, part.text))
    if not blocks.whole:
        return [blanks, sentences, lines, words]
    whole = blocks.whole
    kept = [span for span in whole if _fits(part, span)]
    broken = [span for span in whole if not _fits(part, span)]
    edges = np.array(sorted({edge for span in whole for edge in span}), dtype=np.int64)
    sentences = _merged(_outside(sentences, broken), _inside(lines, broken))
    tables = [span for span in broken if span.end in blocks.tables]
    kept += [row for table in tables for row in _rows(part.text, lines, table) if _fits(part, row)]
    kept.sort()
    cells = _inside(_ends(_CELL, part.text), tables)
    levels = [_merged(blanks, edges), sentences, lines, cells, words]
    return [_outside(level, kept) for level in levels]


def _code_levels(
    part: _Measured, definitions: Sequence[Span], lines: Positions, words: Positions
) -> list[Positions]:
    kept: list[Span] = []
    for span in definitions:  # an outer one comes before those in it
        if (not kept or span.start >= kept[-1].end) and _fits(part, span):
            kept.append(span)
    starts = np.array(sorted({span.start for span in definitions}), dtype=np.int64)
    blanks = _ends(BLANK_LINE, part.text)
    top = [place for place in blanks.tolist() if _is_top_level(part.text, place)]
    levels = [np.array(top, dtype=np.int64), starts, blanks, lines, words]
    return [_outside(level, kept) for level in levels]


def _is_top_level(text: str, place: int) -> bool:
    return text[place - 1] == "\n" and text[place : place + 1] not in ("", ")", "]", "}")


def _rows(text: str, lines: Positions, table: Span | None = None) -> Iterator[Span]:
    start, end = table or (0, len(text))
    for place in [*_inside(lines, [Span(start, end)]).tolist(), end]:
        yield Span(start, place)
        start = place


def _fits(part: _Measured, span: Span) -> bool:
    # Right below its heading a block has to share the budget with it.
    start = 0 if part.body <= span.start <= part.content else span.start
    return part.tokens_between(start, span.end) <= part.max_tokens


def _ends(pattern: re.Pattern[str], text: str) -> Positions:
    return np.fromiter((match.end() for match in pattern.finditer(text)), dtype=np.int64)


def _merged(one: Positions, other: Positions) -> Positions:
    return np.union1d(one, other)


def _outside(positions: Positions, spans: Sequence[Span]) -> Positions:
    return positions[~_is_inside(positions, spans)]


def _inside(positions: Positions, spans: Sequence[Span]) -> Positions:
    return positions[_is_inside(positions, spans)]


def _is_inside(positions: Positions, spans: Sequence[Span]) -> NDArray[np.bool_]:
    """Tell which positions lie strictly within one of the spans (ascending, apart)."""
    if not spans:
        return np.zeros(len(positions), dtype=np.bool_)
    starts, ends = (np.array(side, dtype=np.int64) for side in zip(*spans, strict=True))
    place = np.searchsorted(starts, positions, side="left") - 1
    return (place >= 0) & (positions < ends[place])


def _split_long(tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    widths = tokens[:, 1] - tokens[:, 0]
    if not len(tokens) or widths.max() <= LONG_TOKEN_CHARS:
        return tokens
    counts = np.where(widths > LONG_TOKEN_CHARS, -(-widths // LONG_TOKEN_STEP), 1)
    source = np.repeat(np.arange(len(tokens)), counts)
    nth = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = tokens[source, 0] + nth * LONG_TOKEN_STEP
    is_last = nth == counts[source] - 1
    ends = np.where(is_last, tokens[source, 1], starts + LONG_TOKEN_STEP)
    return np.stack([starts, ends], axis=1)
