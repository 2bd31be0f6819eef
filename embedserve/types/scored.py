"""Chunks with their scores, as a leg of a search finds them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, overload

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ScoredId(NamedTuple):
    """A chunk id with its score: cosine similarity to the query, -1..1, or BM25, above 0."""

    id: int
    score: float


@dataclass(frozen=True, eq=False)
class ScoredIds(Sequence[ScoredId]):
    """Several of them as arrays: a search handles hundreds, of which a few are looked at."""

    ids: "NDArray[np.int64]"
    """(count,)"""
    scores: "NDArray[np.float64]"
    """(count,)"""

    def __len__(self) -> int:
        """Count them."""
        return len(self.ids)

    def __iter__(self) -> Iterator[ScoredId]:
        """Give one after the other."""
        return map(ScoredId, self.ids.tolist(), self.scores.tolist())

    @overload
    def __getitem__(self, at: int) -> ScoredId: ...

    @overload
    def __getitem__(self, at: slice) -> "ScoredIds": ...

    def __getitem__(self, at: int | slice) -> "ScoredId | ScoredIds":
        """Return one, or those of a slice."""
        if isinstance(at, slice):
            return self.where(at)
        return ScoredId(int(self.ids[at]), float(self.scores[at]))

    def where(self, chosen: "slice | NDArray[Any]") -> "ScoredIds":
        """Return those that a mask, an order or a slice chooses."""
        return ScoredIds(self.ids[chosen], self.scores[chosen])

    def best_first(self) -> "ScoredIds":
        """Return them by score, the lower id first where scores are equal."""
        by_id = self.where(self.ids.argsort())
        return by_id.where((-by_id.scores).argsort(kind="stable"))
