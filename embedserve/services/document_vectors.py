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
from embedserve.engine.tokenizer import TokenizedText
from embedserve.errors import OverloadedError
from embedserve.services.coming_vectors import Claim, ComingVectors, pass_on
from embedserve.services.embedded_text import EmbeddedTexts, text_hash
from embedserve.services.interruption import Interruption, JobInterruptedError
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
    claim: Claim
    texts: dict[str, str]
    """What is embedded, by its hash: all that the catalog does not have."""
    work: Work
    future: Future[Vectors]
    """Of the claim's own texts."""


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
        self._texts = EmbeddedTexts(encoder, budget)
        self._job_id = job_id
        self._interruption = interruption
        self._coming = ComingVectors()

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
        texts = self._texts.of(title, chunks)
        own = [text_hash(text) for text in texts]
        hashes += own
        known = self._catalog.chunks.known_hashes(self._index, own) | seen
        missing = {key: text for key, text in zip(own, texts, strict=True) if key not in known}
        seen.update(missing)
        claim = self._coming.claim(list(missing))
        try:
            tokenized = self._encoder.tokenize([missing[key] for key in claim.own])
            future = self._queue(tokenized)
        except BaseException as error:
            claim.rows.set_exception(error)
            raise
        pass_on(future, claim.rows)
        tokens = sum(len(text.ids) for text in tokenized)
        work = Work(chunks_embedded=len(claim.own), tokens_embedded=tokens)
        return _Window(claim, missing, work, future)

    def _queue(self, texts: Sequence[TokenizedText]) -> Future[Vectors]:
        """Give texts to the engine as soon as it has room; raise JobInterruptedError."""
        while True:
            self._interruption.check()
            try:
                return self._encoder.submit(texts, lane="bulk")
            except OverloadedError:
                self._interruption.pause(_ROOM_POLL_S)

    def _vectors(self, window: _Window) -> Vectors:
        """Wait for the vectors of a window: its own ones, then those that another file has."""
        own = np.asarray(self._interruption.result(window.future), dtype=np.float32)
        others = [self._from_other(window, key) for key in window.claim.others]
        return np.stack([*own, *others]) if others else own

    def _from_other(self, window: _Window, key: str) -> Vectors:
        place = window.claim.others[key]
        try:
            row: Vectors = self._interruption.result(place.rows)[place.row]
        except JobInterruptedError:
            raise
        except Exception:  # it is the other file's failure; here the text is tried by itself
            again = self._queue(self._encoder.tokenize([window.texts[key]]))
            row = self._interruption.result(again)[0]
        return row

    def _keep(self, window: _Window) -> None:
        vectors = self._vectors(window)
        self._catalog.documents.add_vectors(
            self._index, _hashes(window), vectors, job_id=self._job_id, work=window.work
        )

    def _last(self, hashes: Sequence[str], window: _Window) -> Embedded:
        return Embedded(tuple(hashes), _hashes(window), self._vectors(window), window.work)


def _hashes(window: _Window) -> tuple[str, ...]:
    return (*window.claim.own, *window.claim.others)
