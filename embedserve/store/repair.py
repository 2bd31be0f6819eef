"""Compare a vector index with the catalog, and enqueue what differs.

The catalog is right by definition. What is enqueued here goes the way of every other change.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedserve.errors import VectorStoreError, VectorStoreUnreachableError
from embedserve.store.catalog import Catalog
from embedserve.store.vector_index import VectorIndex, probe
from embedserve.types import ChunkVectors, Index

SELF_SEARCH_COUNT = 5
# Equal texts have equal vectors, so a chunk may find a twin in its place; the slack is float32
# rounding on both sides.
SAME_VECTOR_SCORE = 0.9999
# Chroma scales vectors to unit length once more: 28 % of rows then differ in a last bit, by 1.5e-8
# at most (measured). Another text's vector differs in the first digit.
SAME_VECTOR_ERROR = 1e-6
# HNSW is approximate: one chunk that does not find itself may be chance and is upserted again;
# a damaged index loses a third or more of its sample (measured), so 5 % is far from both.
LOST_SHARE_OF_DAMAGE = 0.05


@dataclass(frozen=True)
class IndexHealth:
    """How far a vector index is from the catalog; changes that still wait are not counted."""

    missing: NDArray[np.int64]
    """Ids of representatives that the vector index does not hold."""
    extra: NDArray[np.int64]
    """Ids it holds that no representative has."""
    sampled: int
    """Chunks that were asked to find themselves by their own vector."""
    lost: NDArray[np.int64]
    """Those that did not."""
    differing: NDArray[np.int64]
    """Those of the sample whose stored vector is not the catalog's."""
    stored: int = 0
    """Ids that the vector index holds."""
    is_unreadable: bool = False
    """It answers, but not questions about this index."""

    @property
    def is_damaged(self) -> bool:
        """Tell whether only a rebuild helps."""
        return self.is_unreadable or len(self.lost) > LOST_SHARE_OF_DAMAGE * self.sampled


def unapplied(
    catalog: Catalog, vector_index: VectorIndex, index: Index, rows: ChunkVectors
) -> ChunkVectors:
    """Return those of some rows that are not stored as they are, or do not find themselves.

    To store a row again makes others of Chroma's graph unreachable now and then: with 150 of 205
    rows stored twice, a restart lost one in 3 of 60 cases, and never with none (measured).
    """
    differing = _differing(catalog, vector_index, index, rows.ids)
    same = np.setdiff1d(rows.ids, differing)
    wanted = np.union1d(differing, _lost(catalog, vector_index, index, same))
    is_wanted = np.isin(rows.ids, wanted)
    return ChunkVectors(rows.ids[is_wanted], rows.vectors[is_wanted])


def check(
    catalog: Catalog, vector_index: VectorIndex, index: Index, *, sample: int = 64
) -> IndexHealth:
    """Compare ids, and let sampled chunks search for themselves.

    Raises VectorStoreError when the vector index is down or too slow to answer, since then nothing
    is known: a large index may be busy with its own log for longer than a call waits.
    """
    try:
        # Read before the catalog: an id seen here that the catalog then does not have is gone for
        # good, because ids are never used twice. A chunk that does not stand for its text may yet
        # come to; who enqueues the deletes looks again.
        stored = vector_index.ids(index.key)
        live = catalog.chunks.representatives(index.id)
        # After these: what is committed meanwhile waits, and is not taken for missing.
        waiting = catalog.changes.pending_ids(index.id)
        settled = np.setdiff1d(live, waiting, assume_unique=True)
        missing = np.setdiff1d(settled, stored, assume_unique=True)
        extra = np.setdiff1d(np.setdiff1d(stored, live), waiting)
        present = np.intersect1d(settled, stored, assume_unique=True)
        drawn = _draw(present, sample)
        lost = _lost(catalog, vector_index, index, drawn)
        differing = _differing(catalog, vector_index, index, drawn)
    except VectorStoreUnreachableError:
        raise
    except VectorStoreError:
        probe(vector_index)
        none = np.empty(0, dtype=np.int64)
        return IndexHealth(none, none, 0, lost=none, differing=none, is_unreadable=True)
    return IndexHealth(
        missing, extra, len(drawn), lost=lost, differing=differing, stored=len(stored)
    )


def repair(catalog: Catalog, vector_index: VectorIndex, index: Index, health: IndexHealth) -> int:
    """Enqueue what `check` found wrong and return the number of changes; rebuild when damaged."""
    if health.is_damaged:
        vector_index.drop(index.key)
        return catalog.changes.enqueue_all(index.id)
    upserts = np.union1d(np.union1d(health.missing, health.lost), health.differing)
    if len(upserts):
        catalog.changes.enqueue_upserts(index.id, upserts.tolist())
    if len(health.extra):
        catalog.changes.enqueue_deletes(index.id, health.extra.tolist())
    return len(upserts) + len(health.extra)


def _draw(ids: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    # Unseeded: each check looks at other chunks, so that damage cannot hide behind one sample.
    generator = np.random.default_rng()
    return generator.choice(ids, size=min(count, len(ids)), replace=False)


def _lost(
    catalog: Catalog, vector_index: VectorIndex, index: Index, ids: NDArray[np.int64]
) -> NDArray[np.int64]:
    sample = catalog.chunks.vectors_of(index, ids.tolist())
    lost = []
    for chunk_id, vector in zip(sample.ids.tolist(), sample.vectors, strict=True):
        hits = vector_index.search(index.key, vector, count=SELF_SEARCH_COUNT)
        is_found = any(hit.id == chunk_id for hit in hits)
        if not is_found and not (hits and hits[0].score >= SAME_VECTOR_SCORE):
            lost.append(chunk_id)
    return np.array(lost, dtype=np.int64)


def _differing(
    catalog: Catalog, vector_index: VectorIndex, index: Index, ids: NDArray[np.int64]
) -> NDArray[np.int64]:
    right = catalog.chunks.vectors_of(index, ids.tolist())
    stored = vector_index.vectors(index.key, right.ids)
    if stored.vectors.shape[1:] != right.vectors.shape[1:]:
        return right.ids
    common, ours, theirs = np.intersect1d(right.ids, stored.ids, return_indices=True)
    distances = np.abs(right.vectors[ours] - stored.vectors[theirs]).max(axis=1, initial=0)
    # What came without a vector is as wrong as what came with another's; NaN is no distance.
    return np.setdiff1d(right.ids, common[distances <= SAME_VECTOR_ERROR])
