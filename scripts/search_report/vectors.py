"""Vectors for many texts of which some are embedded: the others lie between these.

A synthetic vector is 20 to 80 % of the way from a real one (of the same document, where it has one)
to one of the ten real ones nearest to it, and some noise. Points along random directions are far
harder to search than real ones. Of these, made of 5,000 real vectors up to 26,534, the approximate
index found .992 and .998 of the best 100 for real questions (ef_search 300 and 600); of as many
real ones .989 and .998.
"""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedserve.store.rows import from_blob
from embedserve.types import Vectors

NEIGHBOURS = 10
NOISE = 0.02
"""Standard deviation in each dimension: it takes .07 of the cosine."""
_AT_ONCE = 500


class Around:
    """Draw vectors around `real` ones, (texts, dimensions) float32 of unit length."""

    def __init__(self, real: Vectors) -> None:
        self.real = real
        self._chance = np.random.default_rng(4)
        count = min(NEIGHBOURS, len(real) - 1)
        parts = []
        for start in range(0, len(real), _AT_ONCE):
            cosines = real[start : start + _AT_ONCE] @ real.T
            own = np.arange(len(cosines))
            cosines[own, start + own] = -2
            parts.append(np.argpartition(-cosines, count - 1, axis=1)[:, :count])
        self._neighbours = np.concatenate(parts)

    def draw(self, anchors: NDArray[np.int64]) -> Vectors:
        """Return a vector near each of these rows of `real`: (anchors, dimensions) float32."""
        count = len(anchors)
        which = self._chance.integers(0, self._neighbours.shape[1], size=count)
        near = self.real[self._neighbours[anchors, which]]
        way = self._chance.uniform(0.2, 0.8, size=(count, 1))
        drawn = (1 - way) * self.real[anchors] + way * near
        drawn += NOISE * self._chance.normal(size=drawn.shape)
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        return drawn.astype(np.float32)


def is_embedded(key: str, share: float) -> bool:
    """Tell of a text whether it is one of the share that is embedded: by its hash alone."""
    return random.Random(key).random() < share


def known_vectors(catalog: Path | None, artefact: str) -> dict[str, Vectors]:
    """Return the vectors of a model that another catalog has, by hash of the text."""
    if catalog is None:
        return {}
    with closing(sqlite3.connect(f"file:{catalog}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT text_hash, vector FROM vectors WHERE artefact = ?", (artefact,)
        )
        return {text_hash: from_blob(blob) for text_hash, blob in rows}
