"""Why a hit is one, for whoever reads it: the words of the question in it, and its best sentences.

Words are read as the full text reads them, so that what is marked is what was searched for. A word
counts for a sentence the more, the fewer sentences of the hit have it: as good as its rarity in the
whole index, and known without a look at it (docs/decisions.md).
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from embedserve.ingest.sentences import HEADING, sentence_spans
from embedserve.ingest.spans import Span
from embedserve.services.blanks import blanks_between
from embedserve.services.search_request import Highlights, Hit, MarkedSentence
from embedserve.store.lexical import MOST_CHARS, MOST_TERMS
from embedserve.store.term_finder import TermFinder
from embedserve.store.words import Piece, Words
from embedserve.types import StoredChunk

NEARLY = 0.8
"""Of the best sentence's weight: so much makes another one of the best, too."""
MOST_SENTENCES = 3


class Highlighter:
    """Mark what some questions ask for."""

    def __init__(self, words: Words, queries: Sequence[str]) -> None:
        queries = [query[:MOST_CHARS] for query in queries]
        terms = (term for query in queries for term in words.query_terms(query, most=MOST_TERMS))
        self._finder = TermFinder(words, terms)
        self._asked = [(query, self._finder.find(query)) for query in queries]

    def marked(self, hit: Hit) -> Hit:
        """Return a hit with its highlights."""
        found = self._finder.find(hit.text)
        held = {piece.term for piece in found}
        sentences = best_sentences(hit.text, found)
        placed = _Places(hit.chunks)
        return replace(
            hit,
            highlights=Highlights(
                terms=tuple(self._named(held)) if held else (),
                spans=spans_of(found),
                sentences=tuple(
                    MarkedSentence(first, last, placed.of(first), placed.of(last - 1) + 1)
                    for first, last in sentences
                ),
            ),
        )

    def _named(self, held: set[str]) -> dict[str, None]:
        """Return the words of the questions that a text has, as they are written there."""
        named: dict[str, None] = {}
        for query, asked in self._asked:
            for first, last in spans_of(piece for piece in asked if piece.term in held):
                named[query[first:last]] = None
        return named


def best_sentences(text: str, found: Sequence[Piece]) -> list[Span]:
    """Return the spans of the sentences that say most of what was found in a text, best first.

    None where nothing was found. A heading is one only where no other sentence has a word.
    """
    spans = list(sentence_spans(text))
    starts = [span.start for span in spans]
    held: dict[int, set[str]] = {}
    for piece in found:
        held.setdefault(max(bisect_right(starts, piece.start) - 1, 0), set()).add(piece.term)
    holding: dict[str, int] = {}
    for terms in held.values():
        for term in terms:
            holding[term] = holding.get(term, 0) + 1
    weights = {at: sum(1 / holding[term] for term in terms) for at, terms in held.items()}
    bodies = {at: one for at, one in weights.items() if not HEADING.fullmatch(text, *spans[at])}
    weights = bodies or weights
    best = max(weights.values(), default=0.0)
    order = sorted(weights, key=lambda at: (-weights[at], at))[:MOST_SENTENCES]
    return [spans[at] for at in order if weights[at] >= NEARLY * best]


def spans_of(found: Iterable[Piece]) -> tuple[tuple[int, int], ...]:
    """Return spans that do not overlap, in order; what lies in or over another is one with it."""
    spans: list[tuple[int, int]] = []
    for piece in found:
        if spans and piece.start < spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], piece.end))
        else:
            spans.append((piece.start, piece.end))
    return tuple(spans)


class _Places:
    """Places in a hit's text as places in its document."""

    def __init__(self, chunks: Sequence[StoredChunk]) -> None:
        self._chunks = chunks
        self._starts = [0]
        for former, chunk in pairwise(chunks):
            blanks = len(blanks_between(former, chunk))
            self._starts.append(self._starts[-1] + len(former.text) + blanks)

    def of(self, place: int) -> int:
        at = bisect_right(self._starts, place) - 1
        return self._chunks[at].start + place - self._starts[at]
