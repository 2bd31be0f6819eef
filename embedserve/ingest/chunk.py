"""Cut a text into chunks of at most so many tokens, at the boundaries that its form offers.

Chunks are exact spans of the text, in order, without overlap, and leave out only whitespace. A
section is filled greedily: the strongest boundary near the end of the budget wins (definition or
paragraph, then sentence, line, word, token); rows of tables, and what else fits as a whole, stay
whole. Tokens are measured once, by the offsets that the model's own
tokenizer gives. A cut beside whitespace or punctuation leaves a WordPiece tokenizer's tokens as
they are, so the sum holds; the few chunks that begin or end inside a word are measured again.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedserve.ingest.blocks import MAX_COLUMNS_CHARS, Section, short_path
from embedserve.ingest.cut_memory import CutMemory, key_of
from embedserve.ingest.cuts import NO_SPACE, part_spans
from embedserve.ingest.outline import Definition
from embedserve.ingest.parts import batches, parts
from embedserve.ingest.sections import sections
from embedserve.ingest.spans import Span
from embedserve.types import Chunk, LineSpan, MemberSpan, PageSpan, TokenOffsets

Tokens: TypeAlias = NDArray[np.int64]
"""Of one part; see `types.TokenOffsets`."""

MAX_PREFIX_CHARS = 200
MOST_CHARS_WITH_IDS = 1_000_000
"""Chunks of a longer text are tokenized when they are embedded, some at a time: ids take memory."""
# To every tokenizer that splits words at spaces.
_SPACES = frozenset(" \n\r\t")
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
        cut = Cut(self, pages=pages)
        found = batches(parts(text, sections(text, kind, members)))
        return [one for batch in found for one in cut.chunks(text, batch)]

    def pieces(self, text: str, batch: Sequence[Section]) -> "list[Pieces]":
        """Cut some parts of a text."""
        keys = [key_of(text, part) for part in batch]
        known = [self._memory.get(key, part.start) for key, part in zip(keys, batch, strict=True)]
        unknown = [
            text[part.start : part.end]
            for part, spans in zip(batch, known, strict=True)
            if spans is None
        ]
        measured = iter(self._offsets(unknown))
        cut: list[Pieces] = []
        for key, part, spans in zip(keys, batch, known, strict=True):
            tokens = None
            if spans is None:
                tokens = next(measured)
                spans = self._spans(text, part, tokens)
                self._memory.keep(key, part.start, spans)
            cut.append(Pieces(spans, tokens if len(text) <= MOST_CHARS_WITH_IDS else None))
        return cut

    def _spans(self, text: str, part: Section, tokens: Tokens) -> list[Span]:
        return [
            piece
            for span in part_spans(text, part, tokens, self._max_tokens)
            for piece in _within_budget(text, span, self._offsets, self._max_tokens)
        ]


class Pieces(NamedTuple):
    """How one part is cut, and its tokens if they were asked for."""

    spans: list[Span]
    tokens: Tokens | None

    def ids(self, text: str, part: Section, span: Span) -> "array[int] | None":
        """Return the ids of a span that lies between spaces, if they are known."""
        if self.tokens is None or self.tokens.shape[1] < 3:
            return None
        is_begun = span.start > part.start and text[span.start - 1] not in _SPACES
        if is_begun or (span.end < part.end and text[span.end] not in _SPACES):
            return None
        places = (span.start - part.start, span.end - part.start)
        first, last = np.searchsorted(self.tokens[:, 0], places)
        return array("I", self.tokens[first:last, 2].tolist())


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


class Cut:
    """Cut the parts of one text, which come in order, and say where each chunk stands."""

    def __init__(
        self,
        chunker: Chunker,
        *,
        pages: Sequence[PageSpan] = (),
        ordinal: int = 0,
    ) -> None:
        """Number the chunks from `ordinal` on; pages are for a text that is given whole."""
        self._chunker = chunker
        self._pages = pages
        self._page_starts = [page.start for page in pages]
        self._ordinal = ordinal
        self._base = 0  # characters of the text before what is given
        self._line, self._counted_to = 1, 0
        self._outline: tuple[Definition, ...] = ()
        self._next = 0
        self._open: list[Definition] = []

    def chunks(self, text: str, batch: Sequence[Section]) -> Iterator[Chunk]:
        """Yield the chunks of some parts of `text`."""
        for part, cut in zip(batch, self._chunker.pieces(text, batch), strict=True):
            for span in cut.spans:
                yield self._chunk(text, span, part, cut.ids(text, part, span))

    def move(self, text: str, by: int) -> None:
        """Expect a text without the first `by` characters of this one."""
        self._line += text.count("\n", self._counted_to, by)
        self._counted_to = max(self._counted_to - by, 0)
        self._base += by

    def _chunk(self, text: str, span: Span, part: Section, ids: "array[int] | None") -> Chunk:
        start, end = span
        self._line += text.count("\n", self._counted_to, start)
        self._counted_to = start
        path = short_path([*part.heading, *self._definitions(span, part)])
        heading = (*path, *_columns(start, part))
        self._ordinal += 1
        return Chunk(
            self._ordinal - 1,
            text[start:end],
            self._base + start,
            self._base + end,
            self._page(start),
            heading,
            LineSpan(self._line, self._line + text.count("\n", start, end)),
            tokens=ids,
        )

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


def _columns(start: int, part: Section) -> list[str]:
    """Return the column names of the table in whose rows a chunk starts."""
    place = bisect_right(part.tables, start, key=lambda table: table.start) - 1
    if place < 0 or not part.tables[place].start < start < part.tables[place].end:
        return []
    return [part.tables[place].columns]


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
