"""How much of the fp32 model a recipe keeps: the card, the measurement and the gate.

The vectors come from outside; nothing here runs a model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from embedserve.errors import ModelError
from embedserve.types import Vectors

Encode = Callable[[Sequence[str]], Vectors]

NEIGHBOURS = 10


@dataclass(frozen=True)
class FidelityCard:
    """A recipe's vectors against the fp32 vectors of the same texts."""

    cosine_mean: float
    cosine_min: float
    top10_overlap: float
    """Mean share of a text's ten nearest texts that are the same in both spaces, 0..1."""
    texts: int


@dataclass(frozen=True)
class Gate:
    """The least that a recipe must reach to be installed."""

    cosine_mean: float
    cosine_min: float


# int8 on all-MiniLM-L6-v2 gives .9988 / .9953 on the reference texts; dynamic int8 with one scale
# for a whole tensor gave .9925 / .9869 on similar ones. fp32 leaves room for rounding only.
GATES = {"int8": Gate(0.995, 0.985), "fp32": Gate(0.99999, 0.99999)}


def reference_texts() -> list[str]:
    """Return the varied texts that every model is measured on."""
    text = files("embedserve.models").joinpath("reference_texts.txt").read_text("utf-8")
    return [line for line in text.splitlines() if line]


def measure(reference: Encode, candidate: Encode, texts: Sequence[str]) -> FidelityCard:
    """Encode `texts` with both and compare; raises ValueError for fewer than two texts."""
    if len(texts) < 2:
        raise ValueError("fidelity needs at least two texts")
    true, ours = reference(texts), candidate(texts)
    cosines = np.einsum("nd,nd->n", true, ours, dtype=np.float64)
    neighbours = min(NEIGHBOURS, len(texts) - 1)
    pairs = zip(_nearest(true, neighbours), _nearest(ours, neighbours), strict=True)
    return FidelityCard(
        cosine_mean=float(cosines.mean()),
        cosine_min=float(cosines.min()),
        top10_overlap=float(np.mean([len(a & b) / neighbours for a, b in pairs])),
        texts=len(texts),
    )


def gate(card: FidelityCard, recipe: str) -> None:
    """Raise ModelError that names the figure by which `card` fails `recipe`."""
    least = GATES[recipe]
    figures = (
        ("mean cosine", card.cosine_mean, least.cosine_mean),
        ("lowest cosine", card.cosine_min, least.cosine_min),
    )
    for figure, got, wanted in figures:
        # Written so that NaN fails too.
        if not got >= wanted:
            raise ModelError(
                f"Recipe `{recipe}` loses too much of this model: {figure} against fp32 is "
                f"{got:.5f}, at least {wanted} is required. Pull it with `--recipe fp32`."
            )


def _nearest(vectors: Vectors, count: int) -> list[set[int]]:
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    return [set(row) for row in np.argsort(-similarity, axis=1)[:, :count].tolist()]
