"""Texts that say the same, told from each other; and variety, for whoever asks for it.

Words are compared in runs of three ("shingles", Broder 1997). A sketch of minima tells in constant
time which earlier texts may be alike, and those alone are compared: linear in what comes in.
"""

import re
import zlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedserve.types import Vectors

ALIKE = 0.88
"""Shared shingles, of those in either text: .94 for one word of a hundred changed, .89 for one of
fifty, .7 for five of a hundred. At .8 rows of one table fell together: docs/decisions.md."""

RUN = 3
MAX_WORDS = 2000
"""Of a text; what follows is not compared."""

# 8 bands of 4: texts that share 88 % meet with a chance of 99.9 %, half-alike ones with 40 %.
_BANDS, _ROWS = 8, 4
_WORD = re.compile(r"\w+")
# Odd factors make a permutation of 64-bit numbers; fixed, so that an answer is the same tomorrow.
_random = np.random.default_rng(7)
_FACTORS = _random.integers(0, 2**63, size=(_BANDS * _ROWS, 1), dtype=np.uint64) * 2 + 1
_TERMS = _random.integers(0, 2**63, size=(_BANDS * _ROWS, 1), dtype=np.uint64)

Key = TypeVar("Key", bound=Hashable)


@dataclass
class Distinct(Generic[Key]):
    """Texts in order, each kept or found to be near one that was kept."""

    alike: float = ALIKE
    copies: dict[Key, list[Key]] = field(default_factory=dict)
    """The kept ones, with those that are near them."""
    _shingles: dict[Key, frozenset[int]] = field(default_factory=dict)
    _bands: dict[tuple[int, bytes], Key] = field(default_factory=dict)

    def add(self, key: Key, text: str) -> bool:
        """Tell whether a text says something new; if not, note it with the first one it is near."""
        shingles = _shingled(text)
        bands = _sketch(shingles)
        members = frozenset(shingles.tolist())
        for candidate in dict.fromkeys(self._bands[band] for band in bands if band in self._bands):
            if _jaccard(members, self._shingles[candidate]) >= self.alike:
                self.copies[candidate].append(key)
                return False
        self.copies[key] = []
        self._shingles[key] = members
        for band in bands:
            self._bands.setdefault(band, key)
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


def _shingled(text: str) -> NDArray[np.uint64]:
    found = _WORD.findall(text.casefold())[:MAX_WORDS]
    words = [*map(zlib.crc32, "\n".join(found).encode().split(b"\n"))] if found else []
    if len(words) < RUN:  # no run: the text as it stands
        words = [zlib.crc32(text.strip().encode(errors="surrogatepass")), *words, 0, 0]
    row = np.array(words, dtype=np.uint64)
    runs = row[:-2] * np.uint64(0x9E3779B97F4A7C15)
    runs ^= row[1:-1] * np.uint64(0xC2B2AE3D27D4EB4F)
    runs ^= row[2:] * np.uint64(0x165667B19E3779F9)
    return np.unique(runs)


def _sketch(shingles: NDArray[np.uint64]) -> list[tuple[int, bytes]]:
    minima = (shingles * _FACTORS + _TERMS).min(axis=1).reshape(_BANDS, _ROWS)
    return [(number, band.tobytes()) for number, band in enumerate(minima)]


def _jaccard(one: frozenset[int], other: frozenset[int]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
