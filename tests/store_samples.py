"""Documents, vectors and waiting for the tests of the store."""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from embedserve.store.catalog import Catalog
from embedserve.store.vector_index import VectorIndex
from embedserve.types import Chunk, Index, NewDocument, Vectors

DIMENSIONS = 8
ARTEFACT = "a" * 64


def unit_vectors(count: int, *, seed: int = 0, dimensions: int = DIMENSIONS) -> Vectors:
    rows = np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)
    scaled: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def document(path: str, texts: list[str], *, sha256: str = "0" * 64) -> NewDocument:
    """Make a version of a file whose vectors follow from its texts."""
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    rows = [unit_vectors(1, seed=int(text_hash[:8], 16)) for text_hash in hashes]
    vectors = np.concatenate([np.empty((0, DIMENSIONS), np.float32), *rows])
    chunks = tuple(
        Chunk(ordinal, text, ordinal, ordinal + len(text), page=1, heading=("Top", "Ünter"))
        for ordinal, text in enumerate(texts)
    )
    kept = tuple(hashes)
    return NewDocument(path, 10, 20, sha256, "Title", "text", chunks, kept, kept, vectors)


def embedded(path: str, texts: list[str], *, before: str) -> NewDocument:
    """Make a version whose texts are embedded with something `before` them, as models do."""
    version = document(path, texts)
    made = document(path, [f"{before}Title > Top > Ünter\n\n{text}" for text in texts])
    hashes = made.text_hashes
    return replace(version, text_hashes=hashes, new_hashes=hashes, vectors=made.vectors)


@contextmanager
def catalog_with_index(folder: Path) -> Iterator[tuple[Catalog, Index, str]]:
    """Open a fresh catalog with one index and one job."""
    with Catalog(folder / "catalog.sqlite3") as catalog:
        index = catalog.indexes.create(
            "notes", "{}", model="m", artefact=ARTEFACT, dimensions=DIMENSIONS
        )
        yield catalog, index, catalog.jobs.create("notes", "/d").id


def drain(catalog: Catalog, vector_index: VectorIndex, index: Index) -> None:
    """Apply what waits, as the index worker does."""
    while pending := catalog.changes.pending(index):
        vector_index.delete(index.id, pending.deletes)
        vector_index.upsert(index.id, pending.upserts.ids, pending.upserts.vectors)
        catalog.changes.acknowledge(index.id, pending.up_to)


def wait_until(condition: Callable[[], object], *, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)
