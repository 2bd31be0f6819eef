"""Cut a text that comes in pieces, none of which has to be a whole anything, in bounded memory.

The chunks are those that `chunk` gives for the whole text. A text is cut part by part, and where a
part ends is told by no more than the MAX_PART_CHARS behind its start and the line after them; so a
part is cut once that much has come, and what is left waits for the next piece. What a layout knows
at that place - headings, an open fence, column names, definitions - goes with it.

What may differ, never a span: a line over 65,536 characters counts as over before its end has come,
so that a fence or block that ends in it ends earlier; a heading above 32,768 characters of nothing
but blanks is cut off from what follows; front matter ends in the first 65,536 characters.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from embedserve.ingest.chunk import Chunker, Cut
from embedserve.ingest.layouts import LAYOUTS
from embedserve.ingest.parts import batches, parts
from embedserve.types import Chunk


@dataclass(frozen=True)
class _Piece:
    text: str
    is_last: bool


@dataclass(frozen=True)
class CutTo:
    """The chunks of some more of a text."""

    chunks: list[Chunk]
    end: int
    """Characters of the text from its beginning that are cut now."""


def chunk_stream(
    pieces: Iterable[str],
    kind: str,
    chunker: Chunker,
    *,
    skip_chars: int = 0,
    ordinal: int = 0,
) -> Iterator[CutTo]:
    """Yield the chunks of a text as its pieces come; `kind` is that of `Extraction`.

    `skip_chars` is the `end` of what was yielded in a former life, `ordinal` how many chunks that
    were: only what comes after it is cut.
    """
    layout = LAYOUTS[kind]()
    cut = Cut(chunker, ordinal=ordinal)
    text, base = "", 0
    for piece in _with_last(pieces):
        text += piece.text
        sections = layout.read(text, is_last=piece.is_last)
        ready = list(parts(text, (replace(section, kind=kind) for section in sections)))
        for batch in batches(part for part in ready if base + part.end > skip_chars):
            yield CutTo(list(cut.chunks(text, batch)), base + batch[-1].end)
        if not ready:
            continue
        layout.keep_from(ready[-1].end)
        # One character stays: a chunk is measured again where it begins inside of a word.
        dropped = ready[-1].end - 1
        cut.move(text, dropped)
        layout.move(dropped)
        text, base = text[dropped:], base + dropped


def _with_last(pieces: Iterable[str]) -> Iterator[_Piece]:
    """Yield the pieces, and say with the last one, which may be empty, that nothing follows."""
    former = ""
    for piece in pieces:
        if former:
            yield _Piece(former, is_last=False)
        former = piece
    yield _Piece(former, is_last=True)
