"""Where some terms stand in texts, such as those of a query in its hits."""

import re
from collections.abc import Iterable, Iterator

from embedserve.store.words import LETTER, WORD, Piece, Words, key_of, spaced

FEWWORDS = 20
"""So many are looked for one by one, more in one pass that takes as long as 20 of them."""

# Where a word may begin and end.
_BEGIN = re.compile(f"(?<![{LETTER}])(?<![{LETTER}]\\.)")
_END = re.compile(f"(?![{LETTER}])(?!\\.[{LETTER}])")


class TermFinder:
    """Find some terms in texts, one after another; what it has learned of a word holds for all."""

    def __init__(self, words: Words, terms: Iterable[str]) -> None:
        self._words = words
        self._terms = {key_of(term): term for term in terms}
        self._pieces: dict[str, tuple[Piece, ...]] = {}
        """Of words that hold a term."""
        self._seen: set[str] = set()

    def find(self, text: str) -> list[Piece]:
        """Return the places of the terms as `Words.pieces` has them, many times as fast."""
        words = _distinct(text)
        self._pieces |= self._words.having(words - self._seen, self._terms)
        self._seen |= words
        held = {word: self._pieces[word] for word in words & self._pieces.keys()}
        if len(held) > FEWWORDS:
            places = ((match.start(), match[0]) for match in WORD.finditer(text))
        else:
            places = ((at, word) for word in held for at in _places(text, word))
        found = [
            Piece(at + one.start, at + one.end, one.term)
            for at, word in places
            for one in held.get(word, ())
        ]
        return sorted(found, key=lambda piece: (piece.start, -piece.end))


def _distinct(text: str) -> set[str]:
    """Return the words of a text."""
    if text.isascii():
        words = set(spaced(text))
        pointed = {word for word in words if "." in word}
        return (words - pointed).union(*map(WORD.findall, pointed))
    tokens = set(text.split())
    foreign = {token for token in tokens if not token.isascii()}
    return _distinct(" ".join(tokens - foreign)).union(*map(WORD.findall, foreign))


def _places(text: str, word: str) -> Iterator[int]:
    """Give where a word stands as one of its own."""
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        if _BEGIN.match(text, at) and _END.match(text, end):
            yield at
        at = text.find(word, at + 1)
