"""The vectors of one document: computed a window at a time, and only those that the catalog lacks.

A document of any size is embedded in bounded memory: all windows but the last are kept in the
catalog as they come, where they also spare their embedding should the job be cut off.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from embedserve.engine.encoder import Encoder
from embedserve.errors import OverloadedError
from embedserve.services.embedded_text import embedded_texts, text_hash
from embedserve.services.interruption import Interruption
from embedserve.services.token_budget import TokenBudget
from embedserve.store.catalog import Catalog
from embedserve.types import Chunk, Index, Vectors, Work

WINDOW = 512
"""Chunks that are embedded together: 800 kB of vectors, and enough for batches of one length."""
AHEAD = 2
"""Windows of a document in the engine at once, so that it never waits for the next one."""
_ROOM_POLL_S = 0.05

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Embedded:
    """What a document's chunks are known by, and the vectors that are not in the catalog yet."""

    text_hashes: tuple[str, ...]
    new_hashes: tuple[str, ...]
    vectors: Vectors
    """(len(new_hashes), dimensions) float32."""
    work: Work
    """What these vectors took."""


@dataclass(frozen=True)
class _Window:
    hashes: tuple[str, ...]
    work: Work
    future: Future[Vectors]


class DocumentVectors:
    """Embed the documents of one job."""

    def __init__(
        self,
        catalog: Catalog,
        encoder: Encoder,
        index: Index,
        *,
        budget: TokenBudget,
        job_id: str,
        interruption: Interruption,
    ) -> None:
        self._catalog = catalog
        self._encoder = encoder
        self._index = index
        self._budget = budget
        self._job_id = job_id
        self._interruption = interruption

    def embed(self, title: str, chunks: Sequence[Chunk], progress: Progress) -> Embedded:
        """Return what a document's chunks, of which there are some, are known by.

        `progress` is told how many of them are done. Raises JobInterruptedError; what waits for
        the engine is dropped then.
        """
        hashes: list[str] = []
        seen: set[str] = set()
        ahead: deque[_Window] = deque()
        try:
            for first in range(0, len(chunks), WINDOW):
                if len(ahead) == AHEAD:
                    self._keep(ahead[0])
                    ahead.popleft()
                    progress(first - WINDOW)
                ahead.append(self._submit(title, chunks[first : first + WINDOW], hashes, seen))
            while len(ahead) > 1:
                self._keep(ahead[0])
                ahead.popleft()
            return self._last(hashes, ahead[0])
        finally:
            for window in ahead:
                window.future.cancel()

    def _submit(
        self, title: str, chunks: Sequence[Chunk], hashes: list[str], seen: set[str]
    ) -> _Window:
        """Queue the texts of a window that neither the catalog has nor an earlier window."""
        texts = embedded_texts(self._encoder, self._budget, title, chunks)
        own = [text_hash(text) for text in texts]
        hashes += own
        known = self._catalog.chunks.known_hashes(self._index, own) | seen
        missing = {key: text for key, text in zip(own, texts, strict=True) if key not in known}
        seen.update(missing)
        tokenized = self._encoder.tokenize(list(missing.values()))
        while True:
            self._interruption.check()
            try:
                future = self._encoder.submit(tokenized, lane="bulk")
                break
            except OverloadedError:
                self._interruption.pause(_ROOM_POLL_S)
        tokens = sum(len(text.ids) for text in tokenized)
        work = Work(chunks_embedded=len(missing), tokens_embedded=tokens)
        return _Window(tuple(missing), work, future)

    def _keep(self, window: _Window) -> None:
        vectors = self._interruption.result(window.future)
        self._catalog.documents.add_vectors(
            self._index, window.hashes, vectors, job_id=self._job_id, work=window.work
        )

    def _last(self, hashes: Sequence[str], window: _Window) -> Embedded:
        vectors = np.asarray(self._interruption.result(window.future), dtype=np.float32)
        return Embedded(tuple(hashes), window.hashes, vectors, window.work)
