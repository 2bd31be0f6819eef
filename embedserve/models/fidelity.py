"""How much of the fp32 model an artefact keeps: the card, the comparison and the gate.

The vectors come from outside; nothing here runs a model.
"""

from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from embedserve.models.recipes import RECIPES
from embedserve.types import Vectors

NEIGHBOURS = 10
ALIKE = 0.02
"""Share of a reranker's range of scores. Most passages have nothing to do with a query; in which
order those come, at the low end and close together, says nothing of what was kept."""

# Behind texts of all kinds and an empty line the reference texts have topics of ten: three queries,
# seven passages.
_TOPIC_TEXTS = 10
# The last texts of all kinds are paragraphs. The first four joined, and the others, fill models of
# 512 tokens; longer ones would cost slow models minutes.
_PARAGRAPHS = 11
_FIRST_JOINED = 4
_TOPIC_QUERIES = 3


@dataclass(frozen=True)
class FidelityCard:
    """An artefact's vectors against the fp32 vectors of the same texts.

    Of a reranker: a query's scores over all passages stand for a vector, less their mean and of
    unit length, so that the cosine is their correlation; the nearest are those scored highest, and
    passages that fp32 scores alike (`ALIKE`) may stand for each other.
    """

    cosine_mean: float
    cosine_min: float
    top1_agreement: float
    """Share of the texts whose nearest other text is the same in both spaces, 0..1."""
    top10_overlap: float
    """Mean share of a text's ten nearest texts that are the same in both spaces, 0..1."""
    texts: int
    """Of a reranker: queries."""


def reference_texts() -> list[str]:
    """Return the varied texts that every model is measured on, the last two of full length."""
    varied, topics = _lines()
    paragraphs = varied[-_PARAGRAPHS:]
    long = [" ".join(paragraphs[:_FIRST_JOINED]), " ".join(paragraphs[_FIRST_JOINED:])]
    return [*varied, *topics, *long]


def compare(true: Vectors, ours: Vectors) -> FidelityCard:
    """Compare (texts, dimensions) vectors of unit length; raises ValueError for less than two."""
    if len(true) < 2:
        raise ValueError("fidelity needs at least two texts")
    cosines = np.einsum("nd,nd->n", true, ours, dtype=np.float64)
    count = min(NEIGHBOURS, len(true) - 1)
    near = (_highest(_similarity(true), count), _highest(_similarity(ours), count))
    pairs = list(zip(*near, strict=True))
    return FidelityCard(
        cosine_mean=float(cosines.mean()),
        cosine_min=float(cosines.min()),
        top1_agreement=float(np.mean([a[0] == b[0] for a, b in pairs])),
        top10_overlap=float(np.mean([len(set(a) & set(b)) / count for a, b in pairs])),
        texts=len(true),
    )


def compare_kind(kind: str, true: Vectors, ours: Vectors) -> FidelityCard:
    """Compare what a model of that kind gives: `compare_scores` for rerankers, else `compare`."""
    return (compare_scores if kind == "reranker" else compare)(true, ours)


def compare_scores(true: Vectors, ours: Vectors) -> FidelityCard:
    """Compare a reranker's scores, (queries, passages); see FidelityCard."""
    correlations = np.einsum("qp,qp->q", _centred(true), _centred(ours), dtype=np.float64)
    return FidelityCard(
        cosine_mean=float(correlations.mean()),
        cosine_min=float(correlations.min()),
        top1_agreement=_rightly_highest(true, ours, 1),
        top10_overlap=_rightly_highest(true, ours, min(NEIGHBOURS, true.shape[1] - 1)),
        texts=len(true),
    )


def reference_pairs() -> tuple[list[str], list[str]]:
    """Return queries and passages that rerankers are measured on, each query with each passage."""
    _, texts = _lines()
    topics = [texts[first : first + _TOPIC_TEXTS] for first in range(0, len(texts), _TOPIC_TEXTS)]
    queries = [text for topic in topics for text in topic[:_TOPIC_QUERIES]]
    return queries, [text for topic in topics for text in topic[_TOPIC_QUERIES:][:2]]


def _lines() -> tuple[list[str], list[str]]:
    """Return texts of all kinds, and those in topics."""
    text = files("embedserve.models").joinpath("reference_texts.txt").read_text("utf-8")
    varied, topics = (part.splitlines() for part in text.strip().split("\n\n"))
    if len(topics) % _TOPIC_TEXTS:
        raise ValueError(f"This is a bug: {len(topics)} reference texts do not make whole topics.")
    return varied, topics


def failed_figures(card: FidelityCard, recipe: str) -> list[str]:
    """Say of each figure below the recipe's gate what it is and what it should be."""
    least = RECIPES[recipe].gate
    figures = (
        ("mean cosine", card.cosine_mean, least.cosine_mean),
        ("lowest cosine", card.cosine_min, least.cosine_min),
        ("top-10 overlap", card.top10_overlap, least.top10_overlap),
    )
    # Written so that NaN fails too.
    return [
        f"{name} against fp32 is {got:.5f}, at least {wanted} is required"
        for name, got, wanted in figures
        if not got >= wanted
    ]


def _similarity(vectors: Vectors) -> Vectors:
    similarity: Vectors = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)  # a text is not its own neighbour
    return similarity


def _centred(scores: Vectors) -> Vectors:
    apart = scores - scores.mean(axis=1, keepdims=True)
    lengths = np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), np.float32(1e-12))
    rows: Vectors = apart / lengths
    return rows


def _rightly_highest(true: Vectors, ours: Vectors, count: int) -> float:
    """Return the share of our `count` highest of each row that are the highest, or as high."""
    chosen = np.argsort(-ours, axis=1, kind="stable")[:, :count]
    least = np.sort(true, axis=1)[:, -count] - ALIKE * np.ptp(true)
    return float(np.mean(np.take_along_axis(true, chosen, axis=1) >= least[:, None]))


def _highest(table: Vectors, count: int) -> list[list[int]]:
    """Return the columns of the `count` highest values of each row, the highest first."""
    columns: list[list[int]] = np.argsort(-table, axis=1, kind="stable")[:, :count].tolist()
    return columns
