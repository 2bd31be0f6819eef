"""The vectors of one document: computed a window at a time, and only those that the catalog lacks.

A document of any size is embedded in bounded memory: all windows but the last are handed over as
they come.
"""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from embedserve.engine.encoder import Encoder
from embedserve.errors import OverloadedError
from embedserve.ingest.chunk_stream import CutTo
from embedserve.services.embedded_text import embedded_texts, text_hash
from embedserve.services.interruption import Interruption
from embedserve.services.token_budget import TokenBudget
from embedserve.store.catalog import Catalog
from embedserve.types import EmbeddedChunks, Index, Vectors, Work

WINDOW = 512
"""Chunks that are embedded together: 800 kB of vectors, and enough for batches of one length."""
AHEAD = 2
"""Windows of a document in the engine at once, so that it never waits for the next one."""
_ROOM_POLL_S = 0.05


@dataclass(frozen=True)
class Embedded:
    """A window whose vectors are there, with what they took."""

    part: EmbeddedChunks
    work: Work


@dataclass(frozen=True)
class _Window:
    cut: CutTo
    text_hashes: tuple[str, ...]
    new_hashes: tuple[str, ...]
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
        interruption: Interruption,
    ) -> None:
        self._catalog = catalog
        self._encoder = encoder
        self._index = index
        self._budget = budget
        self._interruption = interruption

    def embed(
        self, title: str, windows: Iterable[CutTo], keep: Callable[[Embedded], None]
    ) -> Embedded | None:
        """Embed the windows of a document; hand all but the last to `keep`, and return that one.

        None without a window. Raises JobInterruptedError; what waits for the engine is dropped
        then.
        """
        ahead: deque[_Window] = deque()
        try:
            for cut in windows:
                if len(ahead) == AHEAD:
                    keep(self._finished(ahead[0]))
                    ahead.popleft()
                ahead.append(self._submit(title, cut, ahead))
            while len(ahead) > 1:
                keep(self._finished(ahead[0]))
                ahead.popleft()
            return self._finished(ahead[0]) if ahead else None
        finally:
            for window in ahead:
                window.future.cancel()

    def _submit(self, title: str, cut: CutTo, ahead: Iterable[_Window]) -> _Window:
        """Queue the texts of a window that neither the catalog has nor a window under way."""
        texts = embedded_texts(self._encoder, self._budget, title, cut.chunks)
        own = [text_hash(text) for text in texts]
        known = self._catalog.chunks.known_hashes(self._index, own)
        known = known.union(*(window.new_hashes for window in ahead))
        missing = {key: text for key, text in zip(own, texts, strict=True) if key not in known}
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
        return _Window(cut, tuple(own), tuple(missing), work, future)

    def _finished(self, window: _Window) -> Embedded:
        vectors = np.asarray(self._interruption.result(window.future), dtype=np.float32)
        chunks, end = tuple(window.cut.chunks), window.cut.end
        part = EmbeddedChunks(chunks, window.text_hashes, window.new_hashes, vectors, end)
        return Embedded(part, window.work)
