"""Text to terms: what full-text search takes two words to be the same by.

A word is folded (NFKC, case), stemmed in the index's language and stripped of accents. One that is
put together (`getUserName`, `max_tokens`, `os.path`, `utf8`) is kept whole and gives its parts as
well. Chinese, Japanese and Korean, which write no spaces, give pairs of characters.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib.resources import files

import numpy as np
import Stemmer
from numpy.typing import NDArray

LANGUAGES = ("none", *sorted({*Stemmer.algorithms()} - {"porter", "dutch_porter"}))
DEFAULT_LANGUAGE = "english"

MAX_WORD_CHARS = 128
"""More of a word than that tells nothing apart: keys, and pictures written as text."""
MOST_CACHED = 100_000
"""Words whose terms are kept: some 20 MB, and nearly every word of a text in one language."""
_CACHED_CHARS = 32

# Marks that letters are written with are no letters to `\w`.
LETTER = r"\w\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0900-\u0963\u0966-\u0dff\u0e31-\u0e4e"
WORD = re.compile(f"[{LETTER}]+(?:\\.[{LETTER}]+)*")
"""Put together by points, too."""
_SPACED = bytes(
    code if chr(code).isalnum() or chr(code) in "_." else ord(" ") for code in range(128)
) + bytes(128)
# Where `HTTPServer2` and the like come apart.
_SEAM = re.compile(r"[._]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=\d)(?=[^\W\d_])"
                   r"|(?<=[^\W\d_])(?=\d)")  # fmt: skip
# Whose stemmer would take an accent for the end of a word's stem: `résumé` is to be `resume`.
_WITHOUT_ACCENTS = ("none", "english", "indonesian", "sesotho")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\U00020000-\U0003134f]+")
_ACCENT = re.compile(r"[\u0300-\u036f]+")


@dataclass(frozen=True)
class TextTerms:
    """What full-text search knows of some texts."""

    language: str
    keys: NDArray[np.int64]
    """(occurrences,) of every term wherever it stands, text after text."""
    lengths: NDArray[np.int64]
    """(texts,) how many of them are of each text."""
    words: set[str]
    """Distinct ones as they stand there, with points around them."""


@dataclass(frozen=True)
class Piece:
    """A term and where it stands, in characters, end exclusive."""

    start: int
    end: int
    term: str


class Words:
    """Read texts of one language.

    For one thread at a time or many: what two threads find at once is the same.
    """

    def __init__(self, language: str) -> None:
        if language not in LANGUAGES:
            raise ValueError(f"This is a bug: language `{language}` is not known")
        self.language = language
        self._stemmer = Stemmer.Stemmer(language) if language != "none" else None
        if self._stemmer:
            self._stemmer.maxCacheSize = 0  # ours is in front of it, and knows more
        self._stop_words = frozenset(self._plain(word) for word in _stop_words(language))
        self._keys: dict[str, tuple[int, ...]] = {}

    def read(self, texts: Iterable[str]) -> TextTerms:
        """Return the terms of some texts."""
        keys: list[int] = []
        ends: list[int] = []
        distinct: set[str] = set()
        known = self._keys
        for text in texts:
            # What the two cut differently, `_learn` cuts.
            words = spaced(text) if text.isascii() else WORD.findall(text)
            distinct.update(words)
            for word in words:
                found = known.get(word)
                keys += self._learn(word) if found is None else found
            ends.append(len(keys))
        lengths = np.array(ends, np.int64)
        lengths[1:] -= lengths[:-1].copy()
        return TextTerms(self.language, np.array(keys, np.int64), lengths, distinct)

    def pieces(self, text: str) -> Iterator[Piece]:
        """Give every term of a text with its place; parts come after the word they are of."""
        for match in WORD.finditer(text):
            for piece in self._pieces(match[0]):
                yield Piece(match.start() + piece.start, match.start() + piece.end, piece.term)

    def having(
        self, words: Iterable[str], terms: Mapping[int, str]
    ) -> dict[str, tuple[Piece, ...]]:
        """Map those of some words that hold one of some terms, by their keys, to its pieces."""
        known, wanted = self._keys, frozenset(terms.values())
        found = {}
        for word in words:
            keys = known.get(word)
            for key in self._learn(word) if keys is None else keys:
                if key in terms:
                    pieces = self._pieces(word)
                    found[word] = tuple(piece for piece in pieces if piece.term in wanted)
                    break
        return found

    def split(self, text: str) -> list[str]:
        """Return the words of a text as they stand there."""
        return WORD.findall(text)

    def query_terms(self, text: str, *, most: int | None = None) -> list[str]:
        """Return the distinct terms of a question in order, without stop words if others are left.

        Of a word that is put together both the whole and its parts count. No more than `most` are
        looked for: a text of megabytes costs no more than its beginning.
        """
        every = (term for word in _in_turn(text) for term in self._terms_of(word))
        return self._telling(every, lambda term: term, most)

    def content_words(self, text: str, *, most: int | None = None) -> list[str]:
        """Return the distinct words of a question as they are, chosen as `query_terms` chooses."""
        return self._telling(_in_turn(text), self._plain, most)

    def _terms_of(self, word: str) -> Iterable[str]:
        if _is_plain(word):
            return (self._plain(word),)
        return (piece.term for piece in self._pieces(word))

    def _telling(
        self, every: Iterable[str], term_of: Callable[[str], str], most: int | None
    ) -> list[str]:
        """Return the first distinct ones that are no stop words, or all if there are no others."""
        told: dict[str, None] = {}
        silent: dict[str, None] = {}
        for one in every:
            if one not in told and one not in silent:
                (silent if term_of(one) in self._stop_words else told)[one] = None
                if len(told) == most:
                    break
        return list(told or silent)[:most]

    def _learn(self, word: str) -> tuple[int, ...]:
        if _is_plain(word):
            keys: tuple[int, ...] = (key_of(self._plain(word)),)
        else:
            keys = tuple(key_of(piece.term) for piece in self.pieces(word))
        if len(word) <= _CACHED_CHARS:
            if len(self._keys) >= MOST_CACHED:
                self._keys = {}
            self._keys[word] = keys
        return keys

    def _pieces(self, word: str) -> list[Piece]:
        if not word.isascii() and _CJK.search(word):
            return list(self._without_spaces(word))
        parts = [(0, len(word))]
        if not _is_plain(word):
            parts = list(_parts(word))
        pieces = [Piece(start, end, self._plain(word[start:end])) for start, end in parts]
        if len(parts) > 1:
            pieces.insert(0, Piece(0, len(word), self._plain(word)))
        return [piece for piece in pieces if piece.term]

    def _without_spaces(self, word: str) -> Iterator[Piece]:
        """Give pairs of characters that overlap, and what else stands between them."""
        done = 0
        for match in _CJK.finditer(word):
            yield from self._between(word, done, match.start())
            done = match.end()
            for start in range(match.start(), max(done - 1, match.start() + 1)):
                end = min(start + 2, done)
                yield Piece(start, end, _folded(word[start:end]))
        yield from self._between(word, done, len(word))

    def _between(self, word: str, start: int, end: int) -> Iterator[Piece]:
        for piece in self._pieces(word[start:end]):
            yield Piece(start + piece.start, start + piece.end, piece.term)

    def _plain(self, word: str) -> str:
        """Return the term of a word that has no parts."""
        folded = _folded(word)
        if not folded.isascii() and self.language in _WITHOUT_ACCENTS:
            folded = _bare(folded)
        stem = self._stemmer.stemWord(folded) if self._stemmer else folded
        return stem if stem.isascii() else _bare(stem)


@cache
def words_of(language: str) -> Words:
    """Return what reads a language; the same one every time, for what it has learned."""
    return Words(language)


def key_of(term: str) -> int:
    """Return the 64-bit signed number that a term is stored under.

    Of a million terms two share one with a probability of 3e-8.
    """
    return int.from_bytes(blake2b(term.encode("utf-8", "replace"), digest_size=8).digest(),
                          "little", signed=True)  # fmt: skip


def spaced(text: str) -> list[str]:
    """Return the words of an ASCII text, points around them included: 4 times as fast as WORD."""
    return text.encode().translate(_SPACED).decode().split()


def _in_turn(text: str) -> Iterator[str]:
    """Give the distinct words of a text, as far as somebody reads."""
    seen: set[str] = set()
    for match in WORD.finditer(text):
        if match[0] not in seen:
            seen.add(match[0])
            yield match[0]


def _is_plain(word: str) -> bool:
    """Tell of most words, quickly, that they are in one piece."""
    return word.isascii() and word.isalpha() and word[1:].islower()


def _parts(word: str) -> Iterator[tuple[int, int]]:
    start = 0
    for seam in _SEAM.finditer(word):
        if seam.start() > start:
            yield start, seam.start()
        start = seam.end()
    if start < len(word):
        yield start, len(word)


def _folded(word: str) -> str:
    word = word[:MAX_WORD_CHARS]
    if word.isascii():
        return word.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold())


def _bare(word: str) -> str:
    return unicodedata.normalize("NFC", _ACCENT.sub("", unicodedata.normalize("NFD", word)))


def _stop_words(language: str) -> list[str]:
    text = files("embedserve.store").joinpath("stop_words.txt").read_text(encoding="utf-8")
    lists = dict(line.split(": ", 1) for line in text.splitlines() if line[:1].isalpha())
    return lists.get(language, "").split()
