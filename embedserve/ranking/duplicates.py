"""Texts that say the same, told from each other; and variety, for whoever asks for it.

Words are compared in runs of three ("shingles", Broder 1997). Only texts that share one of the
first few of their shingles, in an order that is the same for all, can be alike ("prefix filter",
Chaudhuri, Ganti and Kaushik 2006): those alone are compared, and none is missed.
"""

import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Generic, TypeVar

import numpy as np

from embedserve.types import Vectors

ALIKE = 0.88
"""Shared shingles, of those in either text: .94 for one word of a hundred changed, .89 for one of
fifty, .7 for five of a hundred. At .8 rows of one table fell together: docs/decisions.md."""

RUN = 3
MAX_WORDS = 2000
"""Of a text; what follows is not compared."""

_WORD = re.compile(r"\w+")

# `\w` of ASCII, several times as fast.
_SPACED = bytes(code if chr(code).isalnum() or code == ord("_") else 32 for code in range(128))
_SPACED += bytes(128)

Shingle = tuple[str, ...]
Key = TypeVar("Key", bound=Hashable)


@dataclass
class Distinct(Generic[Key]):
    """Texts in order, each kept or found to be near one that was kept."""

    alike: float = ALIKE
    copies: dict[Key, list[Key]] = field(default_factory=dict)
    """The kept ones, with those that are near them."""
    _shingles: dict[Key, frozenset[Shingle]] = field(default_factory=dict)
    _holding: dict[int, list[Key]] = field(default_factory=dict)
    """The kept ones by the hash of each of their first shingles."""

    def add(self, key: Key, text: str) -> bool:
        """Tell whether a text says something new; if not, note it with the first one it is near."""
        shingles = _shingled(text)
        first = self._first(shingles)
        near = {other for hashed in first for other in self._holding.get(hashed, ())}
        alike = [one for one in near if _jaccard(shingles, self._shingles[one]) >= self.alike]
        if alike:
            # Kept ones are in `copies` in order.
            earliest = next(one for one in self.copies if one in alike)
            self.copies[earliest].append(key)
            return False
        self.copies[key] = []
        self._shingles[key] = shingles
        for hashed in first:
            self._holding.setdefault(hashed, []).append(key)
        return True

    def _first(self, shingles: frozenset[Shingle]) -> list[int]:
        """Return hashes of so many shingles that a text which is alike has one of them."""
        count = len(shingles) - ceil(self.alike * len(shingles)) + 1
        return sorted(map(hash, shingles))[:count]


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
        return frozenset([(text.strip(),)])
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def _words(text: str) -> list[str]:
    if text.isascii():
        return text.lower().encode().translate(_SPACED).decode().split()
    return _WORD.findall(text.casefold())


def _jaccard(one: frozenset[Shingle], other: frozenset[Shingle]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
