"""Vectors for many texts of which some are embedded: the others lie around these.

A synthetic vector is c * a + sqrt(1 - c * c) * u. a is a real one, of a chunk nearby in the same
document where there is one; c is drawn from the cosines of real neighbouring chunks; u points along
the difference of two other real vectors, made orthogonal to a. So directions, and how close texts
are to each other, are those of the model; which text is close to which is not.
"""

import random
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embedserve.types import Vectors

Floats = NDArray[np.float64]


@dataclass
class Around:
    """Draw vectors around real ones."""

    real: Vectors
    """(texts, dimensions) float32 of unit length."""
    cosines: Floats
    """(pairs,) of real neighbours."""
    _chance: np.random.Generator = field(default_factory=lambda: np.random.default_rng(4))

    def draw(self, anchors: NDArray[np.int64]) -> Vectors:
        """Return a vector near each of these rows of `real`: (anchors, dimensions) float32."""
        count = len(anchors)
        near = self.real[anchors].astype(np.float64)
        pairs = self._chance.integers(0, len(self.real), size=(2, count))
        away = self.real[pairs[0]].astype(np.float64) - self.real[pairs[1]]
        away += 1e-6 * self._chance.normal(size=away.shape)  # a pair may be one text twice
        away -= (away * near).sum(axis=1, keepdims=True) * near
        away /= np.linalg.norm(away, axis=1, keepdims=True)
        cosines = self._chance.choice(self.cosines, size=count)[:, None]
        drawn = cosines * near + np.sqrt(1 - cosines**2) * away
        drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
        return drawn.astype(np.float32)


def is_embedded(key: str, share: float) -> bool:
    """Tell of a text whether it is one of the share that is embedded: by its hash alone."""
    return random.Random(key).random() < share
