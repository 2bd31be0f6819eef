"""Pieces of a text that are tokenized at once: sections, and parts of long ones."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from embedserve.ingest.blocks import Block, Section
from embedserve.ingest.spans import Span

MAX_PART_CHARS = 32_768
"""What is tokenized in one piece; bounds memory, and keeps a text without spaces linear."""
BATCH_CHARS = 131_072
"""Texts handed to the tokenizer in one call."""


def parts(text: str, sections: Iterable[Section]) -> Iterator[Section]:
    """Yield the sections, those over `MAX_PART_CHARS` in pieces.

    Of an open section the last piece, which is still to grow, is left out.
    """
    for section in sections:
        start = section.start
        while section.end - start > MAX_PART_CHARS:
            end = _part_end(text, start, section.whole)
            yield _clip(section, start, end)
            start = end
        if not section.is_open:
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
    whole = tuple(
        Span(max(span.start, start), min(span.end, end))
        for span in _touching(section.whole, start, end)
    )
    # Not clipped: their column names stand where they begin, be it in another part.
    tables = _touching(section.tables, start, end)
    body = min(max(section.body, start), end)
    return replace(section, start=start, body=body, end=end, whole=whole, tables=tables)


def _touching(spans: tuple[Block, ...], start: int, end: int) -> tuple[Block, ...]:
    first = bisect_right(spans, start, key=lambda span: span.end)
    last = bisect_right(spans, end - 1, key=lambda span: span.start)
    return spans[first:last]


def batches(parts: Iterable[Section]) -> Iterator[list[Section]]:
    """Yield runs of parts of about `BATCH_CHARS`."""
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
