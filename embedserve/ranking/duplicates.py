"""Texts that say the same, told from each other; and variety, for whoever asks for it.

Words are compared in runs of three ("shingles", Broder 1997). Each text has a bit for each of its
shingles, some of which share one; bits that differ tell that two texts are not alike, in .1 us, and
only the others are compared.
"""

import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from embedserve.types import Vectors

ALIKE = 0.88
"""Shared shingles, of those in either text: .94 for one word of a hundred changed, .89 for one of
fifty, .7 for five of a hundred. At .8 rows of one table fell together: docs/decisions.md."""

RUN = 3
_BITS = 1024
MAX_WORDS = 2000
"""Of a text; what follows is not compared."""

_WORD = re.compile(r"\w+")

# `\w` of ASCII, several times as fast.
_SPACED = bytes(code if chr(code).isalnum() or code == ord("_") else 32 for code in range(128))
_SPACED += bytes(128)

Shingle = int
"""A run of words by its hash of 64 bits, which takes half as long to compare."""

Key = TypeVar("Key", bound=Hashable)


@dataclass
class Distinct(Generic[Key]):
    """Texts in order, each kept or found to be near one that was kept."""

    alike: float = ALIKE
    copies: dict[Key, list[Key]] = field(default_factory=dict)
    """The kept ones, with those that are near them."""
    _kept: dict[Key, tuple[frozenset[Shingle], int]] = field(default_factory=dict)
    """Shingles and bits of the kept ones."""

    def add(self, key: Key, text: str) -> bool:
        """Tell whether a text says something new; if not, note it with the first one it is near."""
        shingles = _shingled(text)
        bits = _bits(shingles)
        # Of two sizes together, what two texts that are alike may differ in at the most.
        share = (1 - self.alike) / (1 + self.alike) + 1e-9
        for other, (others, other_bits) in self._kept.items():
            most = share * (len(shingles) + len(others))
            if (bits ^ other_bits).bit_count() <= most and _jaccard(shingles, others) >= self.alike:
                self.copies[other].append(key)
                return False
        self.copies[key] = []
        self._kept[key] = shingles, bits
        return True


def collapse(texts: Iterable[tuple[Key, str]], *, alike: float = ALIKE) -> dict[Key, list[Key]]:
    """Return the first of each group of near-duplicates, in order, with the others of it."""
    distinct: Distinct[Key] = Distinct(alike)
    for key, text in texts:
        distinct.add(key, text)
    return distinct.copies


def diversify(
    vectors: Vectors, relevance: Sequence[float], *, count: int, trade_off: float = 0.7
) -> list[int]:
    """Return positions by maximal marginal relevance (Carbonell and Goldstein 1998), best first.

    `vectors` are unit rows, (candidates, dimensions); a candidate counts `trade_off` times its
    relevance, less the rest times its cosine to the nearest one that was chosen.
    """
    gain = trade_off * np.asarray(relevance, dtype=np.float64)
    nearest = np.zeros(len(gain))
    chosen: list[int] = []
    for _ in range(min(count, len(gain))):
        marginal = gain - (1 - trade_off) * nearest
        marginal[chosen] = -np.inf
        best = int(np.argmax(marginal))
        similar = vectors @ vectors[best]
        nearest = np.maximum(nearest, similar) if chosen else similar.astype(np.float64)
        chosen.append(best)
    return chosen


def _shingled(text: str) -> frozenset[Shingle]:
    words = _words(text)[:MAX_WORDS]
    if len(words) < RUN:  # no run: the text as it stands
        return frozenset([hash(text.strip())])
    return frozenset(map(hash, zip(words, words[1:], words[2:], strict=False)))


def _bits(shingles: frozenset[Shingle]) -> int:
    is_set = np.zeros(_BITS, np.bool_)
    is_set[np.fromiter(shingles, np.int64, len(shingles)) % _BITS] = True
    return int.from_bytes(np.packbits(is_set).tobytes())


def _words(text: str) -> list[str]:
    if text.isascii():
        return text.lower().encode().translate(_SPACED).decode().split()
    return _WORD.findall(text.casefold())


def _jaccard(one: frozenset[Shingle], other: frozenset[Shingle]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
