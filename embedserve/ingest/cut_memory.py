"""How sections were cut, for those that come again: versions of a document share most of theirs.

Nothing is kept but a digest of each section and the places of its cuts.
"""

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from threading import Lock
from typing import TypeAlias

from embedserve.ingest.blocks import Section
from embedserve.ingest.cuts import NO_SPACE
from embedserve.ingest.spans import Span

# Two numbers of 4 bytes for each chunk; a section takes as much as 60 besides. 8 MiB together, some
# 30,000 sections.
MOST_NUMBERS = 2_000_000
SECTION_NUMBERS = 60

Cuts: TypeAlias = "array[int]"
"""Starts and ends in turn, counted from the start of the section."""


def key_of(text: str, part: Section) -> bytes | None:
    """Return what decides how a part of a text is cut, as a digest; None: do not remember it.

    Besides its text and its blocks these are the characters beside it: a chunk that ends within a
    word is measured again. Code is left out, whose definitions may be those of a whole long file.
    """
    if part.outline:
        return None
    start, end = part.start, part.end
    blocks = [(span.start - start, span.end - start) for span in (*part.whole, *part.tables)]
    beside = [_joining(char) for char in (text[max(start - 1, 0) : start], text[end : end + 1])]
    layout = (part.kind, part.body - start, len(part.whole), blocks, beside, end - start)
    digest = blake2b(ascii(layout).encode(), digest_size=16)
    digest.update(text[start:end].encode(errors="surrogatepass"))
    return digest.digest()


def _joining(char: str) -> str:
    """Return a character that may be of one word with the next; most beside a section are not."""
    return char if char.isalnum() or char in NO_SPACE else ""


class CutMemory:
    """The cuts of sections for one budget and one tokenizer; least used out first. Thread-safe."""

    def __init__(self, most_numbers: int = MOST_NUMBERS) -> None:
        self._most_numbers = most_numbers
        self._numbers = 0
        self._cuts: OrderedDict[bytes, Cuts] = OrderedDict()
        self._lock = Lock()

    def get(self, key: bytes | None, start: int) -> list[Span] | None:
        """Return the spans of a section that begins at `start`; None: it was not seen yet."""
        with self._lock:
            cuts = self._cuts.get(key) if key else None
            if cuts is None or key is None:
                return None
            self._cuts.move_to_end(key)
        return [Span(start + a, start + b) for a, b in zip(cuts[::2], cuts[1::2], strict=True)]

    def keep(self, key: bytes | None, start: int, spans: Sequence[Span]) -> None:
        """Remember the spans of a section that begins at `start`."""
        if key is None:
            return
        cuts = array("I", (place - start for span in spans for place in span))
        with self._lock:
            if key in self._cuts:
                return
            self._cuts[key] = cuts
            self._numbers += len(cuts) + SECTION_NUMBERS
            while self._numbers > self._most_numbers:
                _, oldest = self._cuts.popitem(last=False)
                self._numbers -= len(oldest) + SECTION_NUMBERS
