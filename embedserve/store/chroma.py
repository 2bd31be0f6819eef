"""Chroma behind the contract of `vector_index`; what its client does is in chroma_client.py.

A `collection` of Chroma is what holds one index: named after `Index.key`, one row for each chunk,
with the chunk id as the row's id and nothing but the vector in it. Texts stay in the catalog.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from embedserve.errors import (
    VectorStoreError,
    VectorStoreRefusedError,
)
from embedserve.store.chroma_client import (
    connect,
    is_refusal,
    post,
    reason,
    rows_of,
    translation,
)
from embedserve.store.chroma_package import (
    Collection,
    CreateCollectionConfiguration,
    FastAPI,
    NotFoundError,
)
from embedserve.store.rows import NO_HITS
from embedserve.types import ChunkVectors, ScoredIds, Vectors

ADVICE = "Check that it runs, its log and its disk; search goes on exactly from the catalog."
MAX_BODY_BYTES = 40 * 1024 * 1024  # Chroma's own cap on a request
BYTES_PER_FLOAT = 24  # a float32 as JSON text never takes more, comma included
PAGE = 5000

# Of 100,000 vectors 100 real questions found of their true top 100, by ef_construction (measured):
# 100: .966 with ef_search 300, .985 with 600, .990 with 1000, .994 with 2000;
# 200: .982 with 300, .995 with 600, .998 with 1000. An insert takes 1.8 ms for 1.5. Chunks as
# questions lie among what is indexed, and flatter it.
# Both stay as an index was made: changing them later does nothing to a graph that is loaded.
# sync_threshold: every that many changes Chroma writes its graph in place, and a kill in that
# window corrupts it for good: after 3 to 34 kills at the default of 1000, never in 80 kills at
# 100000 (measured). The price is a replay of the changes since then after a restart.
CONFIGURATION: CreateCollectionConfiguration = {
    "hnsw": {
        "space": "cosine",
        "ef_search": 800,
        "ef_construction": 200,
        "sync_threshold": 100_000,
    }
}

_NOTHING_ELSE = {"metadatas": None, "documents": None, "uris": None}

T = TypeVar("T")


class ChromaIndex:
    """A vector index in a Chroma server at `url`, which may be down when this is made.

    `url` is a function because a child's port changes when it is started again.
    """

    def __init__(
        self, url: Callable[[], str], *, timeout_s: float, prefix: str = "embedserve"
    ) -> None:
        self._current_url = url
        self._timeout_s = timeout_s
        self._prefix = prefix
        self._lock = Lock()
        self._url = ""
        self._server: FastAPI | None = None
        self._collections: dict[int, Collection] = {}

    def upsert(self, key: int, ids: NDArray[np.int64], vectors: Vectors) -> None:
        """Store vectors in batches that fit Chroma's limits; see `VectorIndex`."""
        if len(ids):
            self._use(key, lambda collection: self._upsert(collection, ids, vectors), create=True)

    def delete(self, key: int, ids: Sequence[int]) -> None:
        """Forget these ids; see `VectorIndex`."""

        def delete_pages(collection: Collection) -> None:
            _read_before_write(collection)
            for start in range(0, len(ids), PAGE):
                with self._storing():
                    collection.delete(ids=[str(id_) for id_ in ids[start : start + PAGE]])

        self._use(key, delete_pages)

    def search(self, key: int, vector: NDArray[np.float32], *, count: int) -> ScoredIds:
        """Return the nearest ids; see `VectorIndex`."""

        def query(collection: Collection) -> ScoredIds:
            # Not `collection.query`: what it checks and converts takes 1.6 ms of every search.
            wanted = {
                "query_embeddings": vector[None, :],
                "n_results": count,
                "include": ["distances"],
            }
            found = post(self._connected(), collection, "query", wanted)
            distances = found["distances"] or [[]]
            scores = np.minimum(1.0, 1.0 - np.array(distances[0], np.float64))
            return ScoredIds(np.array([*map(int, found["ids"][0])], np.int64), scores)

        return self._use(key, query) or NO_HITS

    def count(self, key: int) -> int:
        """Count the stored ids; see `VectorIndex`."""
        return self._use(key, lambda collection: collection.count()) or 0

    def ids(self, key: int) -> NDArray[np.int64]:
        """Return every stored id, ascending, read page by page; see `VectorIndex`."""

        def read_pages(collection: Collection) -> list[NDArray[np.int64]]:
            pages, offset = [np.empty(0, dtype=np.int64)], 0
            while page := collection.get(include=[], limit=PAGE, offset=offset)["ids"]:
                pages.append(np.array(page, dtype=np.int64))
                offset += len(page)
            return pages

        pages = self._use(key, read_pages) or [np.empty(0, dtype=np.int64)]
        return np.unique(np.concatenate(pages))

    def vectors(self, key: int, ids: NDArray[np.int64]) -> ChunkVectors:
        """Return stored vectors, of unit length once more; see `VectorIndex`."""

        def get(collection: Collection) -> ChunkVectors | None:
            wanted = [str(id_) for id_ in ids.tolist()]
            found = collection.get(ids=wanted, include=["embeddings"])
            if not found["ids"]:
                return None
            stored = np.array(found["ids"], dtype=np.int64)
            order = np.argsort(stored)
            vectors = np.asarray(found["embeddings"], dtype=np.float32)
            return ChunkVectors(stored[order], vectors[order])

        found = self._use(key, get) if len(ids) else None
        return found or ChunkVectors(np.empty(0, np.int64), np.empty((0, 0), np.float32))

    def drop(self, key: int) -> None:
        """Delete the whole collection; see `VectorIndex`."""
        with self._translated() as server:
            with suppress(NotFoundError):
                server.delete_collection(self._name(key))
            self._forget(key)

    def close(self) -> None:
        """Close the connections; the next call opens them again."""
        with self._lock:
            self._disconnect()

    def _upsert(self, collection: Collection, ids: NDArray[np.int64], vectors: Vectors) -> None:
        _read_before_write(collection)
        fits_body = MAX_BODY_BYTES // (vectors.shape[1] * BYTES_PER_FLOAT + 64)
        server = self._connected()
        size = max(1, min(server.get_max_batch_size(), fits_body))
        for start in range(0, len(ids), size):
            part = slice(start, start + size)
            rows = {
                "ids": [str(id_) for id_ in ids[part].tolist()],
                "embeddings": rows_of(server, vectors[part]),
                **_NOTHING_ELSE,
            }
            with self._storing():
                # Not `collection.upsert`: it packs each number by itself, .2 ms for each vector.
                post(server, collection, "upsert", rows)

    @contextmanager
    def _storing(self) -> Iterator[None]:
        """Tell a write that fails, right after a read did not, from other failures."""
        try:
            yield
        except Exception as error:
            if is_refusal(error):
                why = f"answers, but stores nothing: {reason(error)}. {ADVICE}"
                raise VectorStoreRefusedError(f"Chroma at `{self._url}` {why}") from error
            raise

    def _use(self, key: int, use: Callable[[Collection], T], *, create: bool = False) -> T | None:
        """Apply `use` to the collection; None when there is none and it is not to be created."""
        with self._translated() as server:
            for _ in range(2):  # a handle may outlive its collection: the folder was emptied
                try:
                    return use(self._collection(server, key, create=create))
                except NotFoundError:
                    self._forget(key)
        if create:
            raise VectorStoreError(
                f"Chroma at `{self._url}` loses the collection `{self._name(key)}` as soon as it "
                "is made. Check that no other program deletes it."
            )
        return None

    def _collection(self, server: FastAPI, key: int, *, create: bool) -> Collection:
        with self._lock:
            known = self._collections.get(key)
        if known is not None:
            return known
        name = self._name(key)
        try:
            if create:
                model = server.get_or_create_collection(name, configuration=CONFIGURATION)
            else:
                model = server.get_collection(name)
        except (KeyError, TypeError, ValueError) as error:  # the client decodes what it is sent
            raise VectorStoreError(
                f"`{self._url}` answers, but not as Chroma does: {reason(error)}. "
                "Check the address."
            ) from error
        # embedding_function=None: the default one would fetch a model of its own.
        collection = Collection(client=server, model=model, embedding_function=None)
        with self._lock:
            if server is self._server:
                self._collections[key] = collection
        return collection

    def _forget(self, key: int) -> None:
        with self._lock:
            self._collections.pop(key, None)

    def _name(self, key: int) -> str:
        return f"{self._prefix}-{key}"

    def _connected(self) -> FastAPI:
        url = self._current_url()
        with self._lock:
            if self._server is None or url != self._url:
                self._disconnect()
                self._server, self._url = connect(url, self._timeout_s), url
            return self._server

    def _disconnect(self) -> None:
        self._collections.clear()
        if self._server is not None:
            self._server._session.close()
        self._server = None

    @contextmanager
    def _translated(self) -> Iterator[FastAPI]:
        server = self._connected()
        try:
            yield server
        except Exception as error:
            kind = translation(error, was_closed=server._session.is_closed)
            if kind is None:
                raise
            raise kind(f"Chroma at `{self._url}` failed: {reason(error)}. {ADVICE}") from error


def _read_before_write(collection: Collection) -> None:
    """Spare the server its slowest path: a whole replay into an index that is full already.

    When a server's first call is a write and reads follow, the next write inserts every change
    since the last sync once more: 10 to 58 s for 5000 to 8000 rows without any answer (measured,
    chromadb 1.5.9). Nobody tells us of restarts, so each batch pays for a read: a millisecond.
    """
    collection.count()
