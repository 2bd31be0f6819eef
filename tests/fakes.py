"""Small stand-ins that keep a contract without its costs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import numpy as np
from numpy.typing import NDArray

from embedserve.errors import VectorStoreUnreachableError
from embedserve.types import ChunkVectors, ScoredIds, Vectors
from tests.loopback_server import on_free_port, serving_on


def scored(scores: Mapping[int, float]) -> ScoredIds:
    """Return ids with their scores, in that order."""
    return ScoredIds(np.array([*scores], np.int64), np.array([*scores.values()], np.float64))


class MemoryVectorIndex:
    """A VectorIndex in a dictionary, exact; `is_down` makes every call fail.

    `failures` holds what the calls for one key are to raise.
    """

    def __init__(self) -> None:
        self.rows: dict[int, dict[int, NDArray[np.float32]]] = {}
        self.is_down = False
        self.failures: dict[int, Exception] = {}

    def upsert(self, key: int, ids: NDArray[np.int64], vectors: Vectors) -> None:
        self._answer(key)
        pairs = zip(ids.tolist(), vectors, strict=True)
        self.rows.setdefault(key, {}).update((id_, vector.copy()) for id_, vector in pairs)

    def delete(self, key: int, ids: Sequence[int]) -> None:
        self._answer(key)
        for id_ in ids:
            self.rows.get(key, {}).pop(id_, None)

    def search(self, key: int, vector: NDArray[np.float32], *, count: int) -> ScoredIds:
        self._answer(key)
        stored = self.rows.get(key, {}).items()
        found = scored({id_: min(1.0, float(row @ vector)) for id_, row in stored})
        return found.best_first()[:count]

    def count(self, key: int) -> int:
        self._answer(key)
        return len(self.rows.get(key, {}))

    def ids(self, key: int) -> NDArray[np.int64]:
        self._answer(key)
        return np.array(sorted(self.rows.get(key, {})), dtype=np.int64)

    def vectors(self, key: int, ids: NDArray[np.int64]) -> ChunkVectors:
        self._answer(key)
        rows = self.rows.get(key, {})
        found = [id_ for id_ in sorted(ids.tolist()) if id_ in rows]
        if not found:
            return ChunkVectors(np.empty(0, np.int64), np.empty((0, 0), np.float32))
        return ChunkVectors(np.array(found), np.stack([rows[id_] for id_ in found]))

    def drop(self, key: int) -> None:
        self._answer(key)
        self.rows.pop(key, None)

    def close(self) -> None:
        """Keep everything: there is nothing to close."""

    def _answer(self, key: int) -> None:
        if self.is_down:
            raise VectorStoreUnreachableError("The vector index is down, as the test asked.")
        if key in self.failures:
            raise self.failures[key]


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """Answer every GET on a port of this machine with the same bytes; give its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    with serving_on(on_free_port(Answer)) as url:
        yield url
