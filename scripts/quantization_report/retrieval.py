"""nDCG@10 on SciFact, as BEIR computes it: title and text in one, cosine, 300 test queries."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedserve.ranking.metrics import ndcg
from embedserve.services.evaluation_sets import read_set
from embedserve.types import Vectors

CUT = 10


@dataclass(frozen=True)
class Retrieval:
    """Documents, queries, and which documents answer which query."""

    documents: dict[str, str]
    """Text by id."""
    queries: dict[str, str]
    judgements: dict[str, dict[str, int]]
    """Gain of a document by id of the query, then of the document."""

    @property
    def texts(self) -> list[str]:
        """Return all that is to be embedded, documents first."""
        return [*self.documents.values(), *self.queries.values()]

    def ndcg(self, vectors: Vectors) -> float:
        """Return the mean over the queries; `vectors` are those of `texts`."""
        rows = vectors[: len(self.documents)]
        ids = list(self.documents)
        scores = []
        for query, vector in zip(self.queries, vectors[len(ids) :], strict=True):
            best = np.argsort(-(rows @ vector), kind="stable")[:CUT]
            scores.append(ndcg([ids[number] for number in best], self.judgements[query], cut=CUT))
        return float(np.mean(scores))


def read_scifact(folder: Path) -> Retrieval:
    """Read the corpus with its test queries."""
    found = read_set(folder)
    documents = {one.id: f"{one.title} {one.text}".strip() for one in found.documents}
    queries = {one.id: one.text for one in found.queries}
    return Retrieval(documents, queries, {one.id: dict(one.gains) for one in found.queries})


def cached(folder: Path, identity: Sequence[str], embed: Callable[[], Vectors]) -> Vectors:
    """Return the vectors kept under `identity`, or have them made and keep them.

    The identity has to name all that the vectors depend on.
    """
    name = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:32]
    path = folder / f"{name}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, embed())
        partial.rename(path)
    vectors: Vectors = np.load(path)
    return vectors


def digest_texts(texts: Sequence[str]) -> str:
    """Name a list of texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
