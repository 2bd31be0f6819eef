"""Cut a text into chunks of at most so many tokens, at the boundaries that its form offers.

Chunks are exact spans of the text, in order, without overlap, and leave out only whitespace. A
section is filled greedily: the strongest boundary near the end of the budget wins (paragraph,
then sentence, line, word, token). Tokens are measured once, by the offsets that the model's own
tokenizer gives. A cut beside whitespace or punctuation leaves a WordPiece tokenizer's tokens as
they are, so the sum holds; the few chunks that begin or end inside a word are measured again.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedserve.ingest.blocks import Section, Span, markdown_sections
from embedserve.types import Chunk, PageSpan, TokenOffsets

MAX_PREFIX_CHARS = 200
MAX_PART_CHARS = 32_768
"""What is tokenized in one piece; bounds memory, and keeps a text without spaces linear."""
BATCH_CHARS = 131_072
"""Texts handed to the tokenizer in one call."""
# A boundary that would leave the chunk emptier than this share is passed over for a weaker one.
MIN_FILL = 0.25
# WordPiece makes one token of a word over 100 characters, however long. Such a token is counted
# as one for each 16 characters, so that a blob of base64 does not become a chunk of megabytes.
LONG_TOKEN_CHARS, LONG_TOKEN_STEP = 32, 16

_BLANK_LINE = re.compile(r"\n[ \t]*\n\s*")
_TOP_LEVEL = re.compile(r"\n[ \t]*\n\s*^(?=[^\s)\]}])", re.MULTILINE)
_SENTENCE = re.compile(r"[.!?…][\"'”’)\]*_]*\s+(?=[^\sa-z])|[。！？]\s*")  # noqa: RUF001
_ITEM = re.compile(r"\n(?=[ \t]*(?:[-*+]|\d{1,3}[.)])[ \t])")
_LINE = re.compile(r"\n+")
_WORD = re.compile(r"\s+")

Positions = NDArray[np.int64]
"""(n,) int64, ascending: characters before which a text may be cut."""


def chunk(
    text: str,
    kind: str,
    pages: Sequence[PageSpan],
    offsets: TokenOffsets,
    *,
    max_tokens: int = 128,
) -> list[Chunk]:
    """Cut `text` (of `Extraction.kind`) into chunks of at most `max_tokens` tokens each."""
    page_starts = [page.start for page in pages]
    chunks: list[Chunk] = []
    for batch in _batches(_parts(text, kind)):
        measured = offsets([text[part.start : part.end] for part in batch])
        for part, tokens in zip(batch, measured, strict=True):
            for span in _part_spans(text, part, tokens, kind, max_tokens):
                for start, end in _within_budget(text, span, offsets, max_tokens):
                    place = bisect_right(page_starts, start) - 1
                    page = pages[place].number if place >= 0 else None
                    chunks.append(
                        Chunk(len(chunks), text[start:end], start, end, page, part.heading)
                    )
    return chunks


def prefix(title: str, heading: Sequence[str]) -> str:
    """Return the line that goes before a chunk when it is embedded, or nothing.

    Says where the chunk stands: title, then headings, none twice, at most `MAX_PREFIX_CHARS`;
    what does not fit is left out from the middle, for the ends tell most.

    >>> prefix("Guide", ("Guide", "Install", "On Linux"))
    'Guide > Install > On Linux\\n\\n'
    """
    names: dict[str, str] = {}
    for name in (title, *heading):
        plain = " ".join(name.split())[: MAX_PREFIX_CHARS // 2 - 4]
        if plain:
            names.setdefault(plain.casefold(), plain)
    parts = list(names.values())
    while len(" > ".join(parts)) > MAX_PREFIX_CHARS:
        del parts[len(parts) // 2 if len(parts) > 2 else 0]
    return " > ".join(parts) + "\n\n" if parts else ""


# -- parts: what is tokenized at once ---------------------------------------------------------


def _parts(text: str, kind: str) -> Iterator[Section]:
    sections = markdown_sections(text) if kind == "markdown" else [Section(0, 0, len(text))]
    for section in sections:
        start = section.start
        while section.end - start > MAX_PART_CHARS:
            end = _part_end(text, start, section.whole)
            yield _clip(section, start, end)
            start = end
        yield _clip(section, start, section.end)


def _part_end(text: str, start: int, whole: Sequence[Span]) -> int:
    latest, earliest = start + MAX_PART_CHARS, start + MAX_PART_CHARS // 2
    for boundary in ("\n\n", "\n", " "):
        found = text.rfind(boundary, earliest, latest)
        if found > 0:
            latest = found + len(boundary)
            break
    place = bisect_right(whole, latest, key=lambda span: span.start) - 1
    if place >= 0 and earliest < whole[place].start < latest < whole[place].end:
        return whole[place].start
    return latest


def _clip(section: Section, start: int, end: int) -> Section:
    if (start, end) == (section.start, section.end):
        return section
    first = bisect_right(section.whole, start, key=lambda span: span.end)
    last = bisect_right(section.whole, end - 1, key=lambda span: span.start)
    whole = tuple(
        Span(max(span.start, start), min(span.end, end)) for span in section.whole[first:last]
    )
    return Section(start, min(max(section.body, start), end), end, section.heading, whole)


def _batches(parts: Iterable[Section]) -> Iterator[list[Section]]:
    batch: list[Section] = []
    size = 0
    for part in parts:
        batch.append(part)
        size += part.end - part.start
        if size >= BATCH_CHARS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


# -- cuts within one part ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Measured:
    """One part with its tokens; every offset here counts from the start of the part."""

    text: str
    body: int
    starts: Positions
    ends: Positions
    max_tokens: int

    def tokens_between(self, start: int, end: int) -> int:
        return int(np.searchsorted(self.starts, end) - np.searchsorted(self.starts, start))


def _part_spans(
    text: str, part: Section, tokens: NDArray[np.int64], kind: str, max_tokens: int
) -> Iterator[Span]:
    tokens = _split_long(tokens)
    spans: Iterable[Span] = [Span(0, part.end - part.start)]
    if len(tokens) > max_tokens:
        measured = _Measured(
            text[part.start : part.end],
            part.body - part.start,
            tokens[:, 0],
            np.maximum.accumulate(tokens[:, 1]),
            max_tokens,
        )
        whole = [Span(a - part.start, b - part.start) for a, b in part.whole]
        spans = _filled(measured, _levels(measured, whole, kind))
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


def _levels(part: _Measured, whole: Sequence[Span], kind: str) -> list[Positions]:
    """Return the places to cut at, strongest kind first."""
    lines, words = _ends(_LINE, part.text), _ends(_WORD, part.text)
    if kind == "code":
        return [_ends(_TOP_LEVEL, part.text), _ends(_BLANK_LINE, part.text), lines, words]
    blanks = _ends(_BLANK_LINE, part.text)
    sentences = _merged(_ends(_SENTENCE, part.text), _ends(_ITEM, part.text))
    if not whole:
        return [blanks, sentences, lines, words]
    kept = [span for span in whole if _fits(part, span)]
    broken = [span for span in whole if not _fits(part, span)]
    edges = np.array(sorted({edge for span in whole for edge in span}), dtype=np.int64)
    sentences = _merged(_outside(sentences, broken), _inside(lines, broken))
    levels = [_merged(blanks, edges), sentences, lines, words]
    return [_outside(level, kept) for level in levels]


def _fits(part: _Measured, span: Span) -> bool:
    # Right below its heading a block has to share the budget with it.
    is_first = not part.text[part.body : span.start].strip() and span.start >= part.body
    start = 0 if is_first else span.start
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


# -- finishing --------------------------------------------------------------------------------


def _within_budget(text: str, span: Span, offsets: TokenOffsets, max_tokens: int) -> Iterator[Span]:
    """Yield the span without surrounding whitespace, in pieces where a broken word made it grow."""
    piece = text[span.start : span.end]
    start = span.start + len(piece) - len(piece.lstrip())
    end = start + len(piece.strip())
    if start >= end:
        return
    if _is_in_word(text, start) or _is_in_word(text, end):
        tokens = offsets([text[start:end]])[0]
        if len(tokens) > max_tokens and end - start > 1:
            middle = start + min(max(int(tokens[len(tokens) // 2][0]), 1), end - start - 1)
            yield from _within_budget(text, Span(start, middle), offsets, max_tokens)
            yield from _within_budget(text, Span(middle, end), offsets, max_tokens)
            return
    yield Span(start, end)


def _is_in_word(text: str, place: int) -> bool:
    return 0 < place < len(text) and text[place - 1].isalnum() and text[place].isalnum()
