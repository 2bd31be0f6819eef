"""The vectors of one document: computed a window at a time, and only those that the catalog lacks.

A document of any size is embedded in bounded memory: all windows but the last are handed over as
they come.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from embedserve.engine.encoder import Encoder
from embedserve.engine.tokenizer import TokenizedText
from embedserve.errors import OverloadedError
from embedserve.ingest.chunk_stream import CutTo
from embedserve.services.coming_vectors import Claim, ComingVectors, pass_on
from embedserve.services.embedded_text import EmbeddedTexts, text_hash
from embedserve.services.interruption import Interruption, JobInterruptedError
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
    claim: Claim
    texts: dict[str, str]
    """What is embedded, by its hash: all that the catalog does not have."""
    work: Work
    future: Future[Vectors]
    """Of the claim's own texts."""

    @property
    def new_hashes(self) -> tuple[str, ...]:
        """Return the texts whose vectors come with the window, in order of their rows."""
        return (*self.claim.own, *self.claim.others)


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
        self._texts = EmbeddedTexts(encoder, budget)
        self._interruption = interruption
        self._coming = ComingVectors()

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
        texts = self._texts.of(title, cut.chunks)
        own = [text_hash(text) for text in texts]
        known = self._catalog.chunks.known_hashes(self._index, own)
        known = known.union(*(window.new_hashes for window in ahead))
        place = {key: number for number, key in enumerate(own) if key not in known}
        missing = {key: texts[number] for key, number in place.items()}
        claim = self._coming.claim(list(missing))
        try:
            mine = [place[key] for key in claim.own]
            tokenized = self._texts.tokenize(
                [texts[number] for number in mine], [cut.chunks[number] for number in mine]
            )
            future = self._queue(tokenized)
        except BaseException as error:
            claim.rows.set_exception(error)
            raise
        pass_on(future, claim.rows)
        tokens = sum(len(text.ids) for text in tokenized)
        work = Work(chunks_embedded=len(claim.own), tokens_embedded=tokens)
        return _Window(cut, tuple(own), claim, missing, work, future)

    def _queue(self, texts: Sequence[TokenizedText]) -> Future[Vectors]:
        """Give texts to the engine as soon as it has room; raise JobInterruptedError."""
        while True:
            self._interruption.check()
            try:
                return self._encoder.submit(texts, lane="bulk")
            except OverloadedError:
                self._interruption.pause(_ROOM_POLL_S)

    def _finished(self, window: _Window) -> Embedded:
        """Wait for the vectors of a window: its own ones, then those that another file has."""
        own = np.asarray(self._interruption.result(window.future), dtype=np.float32)
        others = [self._from_other(window, key) for key in window.claim.others]
        vectors = np.stack([*own, *others]) if others else own
        chunks, end = tuple(window.cut.chunks), window.cut.end
        part = EmbeddedChunks(chunks, window.text_hashes, window.new_hashes, vectors, end)
        return Embedded(part, window.work)

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
