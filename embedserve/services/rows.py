"""From the texts of a request to rows of the engine: what embedding and reranking have in common.

Admission first, then tokens, then the lane, then cache and engine. What the texts are and what the
rows mean, the services know.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from embedserve.engine.encoder import Encoder
from embedserve.engine.requests import WhenFull
from embedserve.engine.tokenizer import TokenizedText
from embedserve.errors import InputTooLongError, TooLargeError
from embedserve.services.admission import Admission
from embedserve.services.encoders import Encoders
from embedserve.services.vectors import VectorSource
from embedserve.types import Lane, Vectors


@dataclass(frozen=True)
class Work:
    """What one request wants of a model."""

    tokenize: Callable[[], Awaitable[list[TokenizedText]]]
    forecast: Callable[[], int] | None
    """About how many tokens that will give; None: to tokenize takes no longer than to ask."""
    refuse_cut: Callable[[tuple[int, ...]], InputTooLongError] | None = None
    """What to raise where the texts at these positions were cut; None: that is allowed."""
    keep_alive_s: float | None = None
    """How long the model stays unused after this; negative: as long as there is room."""


@dataclass(frozen=True)
class Rows:
    """What came of it."""

    vectors: Vectors
    tokens: int
    """Special ones included, after truncation."""
    truncated: tuple[int, ...]
    """Positions of the texts that were cut."""


@dataclass(frozen=True)
class RowSource:
    """Carries out the work of one service's requests; for one event loop."""

    encoders: Encoders
    vectors: VectorSource
    admission: Admission
    small_request_tokens: int
    """Requests up to this many tokens go ahead of larger ones."""

    async def rows(self, encoder: Encoder, work: Work, *, deadline_s: float | None) -> Rows:
        """Return a row for each text; all or nothing. Raises as the services say."""
        encoder.touch()  # what the cache answers is use too
        try:
            with self._place(encoder, work) as let_into:
                texts = await work.tokenize()
            truncated = tuple(i for i, text in enumerate(texts) if text.is_truncated)
            if truncated and work.refuse_cut:
                raise work.refuse_cut(truncated)
            tokens = sum(len(text.ids) for text in texts)
            lane: Lane = "small" if tokens <= self.small_request_tokens else "bulk"
            # What found a place before it was tokenized is not refused after all that.
            when_full: WhenFull = "queue" if lane == let_into else "refuse"
            vectors = await self.vectors.vectors(
                encoder, texts, lane=lane, deadline_s=deadline_s, when_full=when_full
            )
        finally:
            if work.keep_alive_s is not None:
                self.encoders.keep(encoder, work.keep_alive_s)
        return Rows(vectors, tokens, truncated)

    def _place(self, encoder: Encoder, work: Work) -> AbstractContextManager[Lane | None]:
        """Ask for a place before texts are tokenized, where that takes longer than to ask."""
        if work.forecast is None:
            return nullcontext()
        return self.admission.place(encoder, work.forecast())


def refuse_too_many(items: Sequence[object], most: int, *, what: str, instead: str) -> None:
    """Raise TooLargeError for more items in one request than are allowed."""
    if len(items) > most:
        raise TooLargeError(
            f"{len(items)} {what} in one request; at most {most} are allowed "
            f"(EMBEDSERVE_MAX_REQUEST_TEXTS). {instead}"
        )
