"""Exact cosine over the catalog's vectors: slower than an index, never wrong, never down."""

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from embedserve.store.chunks import Chunks
from embedserve.types import ChunkVectors, Index, ScoredIds

PAGE = 8192  # rows in memory at once: 12 MiB at 384 dimensions


class ExactSearch:
    """Rank every chunk of an index, a page at a time."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks

    def search(
        self,
        index: Index,
        vector: NDArray[np.float32],
        *,
        count: int,
        among: Collection[int] | None = None,
    ) -> ScoredIds:
        """Return the `count` nearest chunks, best first, ties by id.

        `vector` is (dimensions,) float32 of unit length; `among` restricts the search to those
        chunk ids.
        """
        ids = np.empty(0, dtype=np.int64)
        scores = np.empty(0, dtype=np.float32)
        for page in self._pages(index, among):
            ids = np.concatenate([ids, page.ids])
            scores = np.concatenate([scores, page.vectors @ vector])
            best = np.lexsort((ids, -scores))[:count]
            ids, scores = ids[best], scores[best]
        return ScoredIds(ids, np.minimum(1.0, scores.astype(np.float64)))

    def _pages(self, index: Index, among: Collection[int] | None) -> Iterator[ChunkVectors]:
        if among is not None:
            wanted = sorted(among)
            for start in range(0, len(wanted), PAGE):
                yield self._chunks.vectors_of(index, wanted[start : start + PAGE])
            return
        after_id = 0
        while len((page := self._chunks.vectors_after(index, after_id, limit=PAGE)).ids):
            yield page
            after_id = int(page.ids[-1])
