"""Ranked chunks into what is answered: passages where a number is asked for, raw chunks to fill a
budget of tokens. Nothing of a document is in two of them.

Measured on spans (docs/decisions.md): neighbours help whoever takes a fixed number of passages, and
harm whoever has a budget, since they take the room of other chunks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

PASSAGE_TOKENS = 300


@dataclass(frozen=True)
class PlacedChunk:
    """A chunk with its place in its document."""

    id: int
    document_id: int
    ordinal: int
    """Chunks of a document are numbered without gaps."""
    start: int
    end: int
    tokens: int


class Counted(Protocol):
    """What takes room in a budget."""

    @property
    def tokens(self) -> int: ...  # noqa: D102  the attribute of that name


T = TypeVar("T", bound=Counted)


@dataclass(frozen=True)
class RankedChunk:
    """A chunk that was found."""

    chunk: PlacedChunk
    score: float

    @property
    def tokens(self) -> int:
        """Return the chunk's."""
        return self.chunk.tokens


@dataclass(frozen=True)
class Passage:
    """Chunks of one document that follow each other."""

    chunks: tuple[PlacedChunk, ...]
    """By place."""
    found: tuple[RankedChunk, ...]
    """Those of them that were found, best first; the others came along."""

    @property
    def score(self) -> float:
        """Return that of the best chunk."""
        return self.found[0].score

    @property
    def tokens(self) -> int:
        """Return the sum of the chunks'."""
        return sum(chunk.tokens for chunk in self.chunks)


def merge_passages(
    ranked: Sequence[RankedChunk],
    around: Mapping[tuple[int, int], PlacedChunk],
    *,
    count: int,
    max_tokens: int = PASSAGE_TOKENS,
) -> list[Passage]:
    """Return the best `count` passages, best first, each of `max_tokens` or of one chunk.

    `around` has chunks by document and ordinal: what was found, and neighbours that may come
    along. A passage grows from the best chunk that is in none yet, first towards what was found
    as well, and ends where another passage begins. Chunks found inside of a passage go to it.
    """
    scores = {(one.chunk.document_id, one.chunk.ordinal): one.score for one in ranked}
    taken: dict[tuple[int, int], int] = {}
    grown: list[list[PlacedChunk]] = []
    found: list[list[RankedChunk]] = []
    for one in ranked:
        place = (one.chunk.document_id, one.chunk.ordinal)
        if place in taken:
            found[taken[place]].append(one)
        elif len(grown) < count:
            chunks = _grow(one.chunk, around, taken, scores, max_tokens)
            taken |= {(chunk.document_id, chunk.ordinal): len(grown) for chunk in chunks}
            grown.append(chunks)
            found.append([one])
    return [Passage(tuple(chunks), tuple(hits)) for chunks, hits in zip(grown, found, strict=True)]


def fill_budget(ranked: Iterable[T], *, max_tokens: int) -> list[T]:
    """Return the best ones whose tokens fit together, best first; what does not fit is passed."""
    left, kept = max_tokens, []
    for one in ranked:
        if one.tokens <= left:
            left -= one.tokens
            kept.append(one)
    return kept


def _grow(
    seed: PlacedChunk,
    around: Mapping[tuple[int, int], PlacedChunk],
    taken: Mapping[tuple[int, int], int],
    scores: Mapping[tuple[int, int], float],
    max_tokens: int,
) -> list[PlacedChunk]:
    chunks, left = [seed], max_tokens - seed.tokens
    while True:
        document, first, last = seed.document_id, chunks[0].ordinal, chunks[-1].ordinal
        # What follows goes before what precedes: an answer more often goes on than it begins.
        places = [(document, last + 1), (document, first - 1)]
        free = [around[place] for place in places if place in around and place not in taken]
        fitting = [chunk for chunk in free if chunk.tokens <= left]
        if not fitting:
            return chunks
        worst = float("-inf")
        best = max(fitting, key=lambda chunk: scores.get((document, chunk.ordinal), worst))
        left -= best.tokens
        chunks = [*chunks, best] if best.ordinal > last else [best, *chunks]
