"""Cut a text into chunks of at most so many tokens, at the boundaries that its form offers.

Chunks are exact spans of the text, in order, without overlap, and leave out only whitespace. A
section is filled greedily: the strongest boundary near the end of the budget wins (definition or
paragraph, then sentence, line, word, token); rows of tables, and what else fits as a whole, stay
whole. Tokens are measured once, by the offsets that the model's own
tokenizer gives. A cut beside whitespace or punctuation leaves a WordPiece tokenizer's tokens as
they are, so the sum holds; the few chunks that begin or end inside a word are measured again.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from embedserve.ingest.blocks import Section, short_path
from embedserve.ingest.cut_memory import CutMemory, key_of
from embedserve.ingest.cuts import NO_SPACE, part_spans
from embedserve.ingest.outline import Definition
from embedserve.ingest.parts import batches, parts
from embedserve.ingest.sections import sections
from embedserve.ingest.spans import Span
from embedserve.types import Chunk, MemberSpan, PageSpan, TokenOffsets

MAX_PREFIX_CHARS = 200
MAX_COLUMNS_CHARS = 300
# Where they are looked for; the cells may be padded with spaces.
MAX_ROW_CHARS = 4_000
COLUMN_MARK = "| "
"""How the column names of a table begin, as the last of a heading."""


def chunk(
    text: str,
    kind: str,
    pages: Sequence[PageSpan],
    offsets: TokenOffsets,
    *,
    max_tokens: int = 128,
    members: Sequence[MemberSpan] = (),
) -> list[Chunk]:
    """Cut `text` (of `Extraction.kind`) into chunks of at most `max_tokens` tokens each.

    `offsets` is asked about every 131,072 characters; what it raises ends the work.
    """
    return Chunker(offsets, max_tokens=max_tokens).chunk(text, kind, pages, members)


class Chunker:
    """Cut texts into chunks of at most `max_tokens` tokens each; safe to share by threads.

    A section that comes again, in another version of a document, is not measured again.
    """

    def __init__(self, offsets: TokenOffsets, *, max_tokens: int) -> None:
        self._offsets = offsets
        self._max_tokens = max_tokens
        self._memory = CutMemory()

    def chunk(
        self, text: str, kind: str, pages: Sequence[PageSpan], members: Sequence[MemberSpan] = ()
    ) -> list[Chunk]:
        """Cut one text; see `chunk`."""
        places = _Places(text, pages)
        chunks: list[Chunk] = []
        for batch in batches(parts(text, sections(text, kind, members))):
            for part, spans in zip(batch, self._cut(text, batch), strict=True):
                for span in spans:
                    chunks.append(places.chunk(len(chunks), span, part))
        return chunks

    def _cut(self, text: str, batch: Sequence[Section]) -> list[list[Span]]:
        keys = [key_of(text, part) for part in batch]
        known = [self._memory.get(key, part.start) for key, part in zip(keys, batch, strict=True)]
        pieces = zip(batch, known, strict=True)
        unknown = [text[part.start : part.end] for part, spans in pieces if spans is None]
        measured = iter(self._offsets(unknown))
        cut: list[list[Span]] = []
        for key, part, spans in zip(keys, batch, known, strict=True):
            if spans is None:
                spans = self._spans(text, part, next(measured))
                self._memory.keep(key, part.start, spans)
            cut.append(spans)
        return cut

    def _spans(self, text: str, part: Section, tokens: NDArray[np.int64]) -> list[Span]:
        return [
            piece
            for span in part_spans(text, part, tokens, self._max_tokens)
            for piece in _within_budget(text, span, self._offsets, self._max_tokens)
        ]


def prefix(title: str, heading: Sequence[str]) -> str:
    """Return the lines that go before a chunk when it is embedded, or nothing.

    Say where the chunk stands: title, then headings, none twice, at most `MAX_PREFIX_CHARS`;
    what does not fit is left out from the middle, for the ends tell most. Column names of a
    table, which end the heading of its rows, get a line of their own.

    >>> prefix("Guide", ("Guide", "Install", "On Linux"))
    'Guide > Install > On Linux\\n\\n'
    """
    *above, last = ("", *heading)
    columns = " ".join(last.split())[:MAX_COLUMNS_CHARS] if last.startswith(COLUMN_MARK) else ""
    names: dict[str, str] = {}
    for name in (title, *above, "" if columns else last):
        plain = " ".join(name.split())[: MAX_PREFIX_CHARS // 2 - 4]
        if plain:
            names.setdefault(plain.casefold(), plain)
    parts = list(names.values())
    while len(" > ".join(parts)) > MAX_PREFIX_CHARS:
        del parts[len(parts) // 2 if len(parts) > 2 else 0]
    place = " > ".join(parts) + "\n\n" if parts else ""
    return place + (f"{columns}\n" if columns else "")


# -- where a chunk stands ---------------------------------------------------------------------


class _Places:
    """Pages, lines, headings and column names of chunks that are asked for in order."""

    def __init__(self, text: str, pages: Sequence[PageSpan]) -> None:
        self._text = text
        self._pages = pages
        self._page_starts = [page.start for page in pages]
        self._line, self._counted_to = 1, 0
        self._outline: tuple[Definition, ...] = ()
        self._next = 0
        self._open: list[Definition] = []
        self._table, self._names = -1, ""

    def chunk(self, ordinal: int, span: Span, part: Section) -> Chunk:
        """Return the chunk with all that is known of its place."""
        text, (start, end) = self._text, span
        self._line += text.count("\n", self._counted_to, start)
        self._counted_to = start
        path = short_path([*part.heading, *self._definitions(span, part)])
        heading = (*path, *self._columns(start, part))
        return Chunk(ordinal, text[start:end], start, end, self._page(start), heading, self._line)

    def _page(self, start: int) -> int | None:
        place = bisect_right(self._page_starts, start) - 1
        return self._pages[place].number if place >= 0 and start < self._pages[place].end else None

    def _definitions(self, span: Span, part: Section) -> list[str]:
        """Return the definitions that hold all of the chunk and begin before it."""
        if part.outline is not self._outline:
            self._outline, self._next, self._open = part.outline, 0, []
        while self._next < len(self._outline) and self._outline[self._next].line < span.start:
            self._open.append(self._outline[self._next])
            self._next += 1
        # What ends before this chunk does holds no later one.
        self._open = [one for one in self._open if one.end >= span.end]
        return [one.title for one in self._open]

    def _columns(self, start: int, part: Section) -> list[str]:
        place = bisect_right(part.tables, start, key=lambda span: span.start) - 1
        if place < 0 or not part.tables[place].start < start < part.tables[place].end:
            return []
        top = part.tables[place].start
        if top != self._table:
            row = self._text[top : top + MAX_ROW_CHARS].partition("\n")[0]
            self._table, self._names = top, " ".join(row.split())[:MAX_COLUMNS_CHARS]
        return [self._names]


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
    if not 0 < place < len(text):
        return False
    left, right = text[place - 1], text[place]
    return (left.isalnum() and right.isalnum()) or left in NO_SPACE or right in NO_SPACE
