"""Texts to vectors for the API dialects: one service call behind all of them."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from embedserve.engine.cache import VectorCache
from embedserve.engine.encoder import Encoder
from embedserve.engine.requests import WhenFull
from embedserve.engine.tokenizer import MOST_CHARS, TokenSpans
from embedserve.errors import InputTooLongError, TooLargeError
from embedserve.services.admission import Admission, forecast
from embedserve.services.deadline import deadline
from embedserve.services.encoders import Encoders
from embedserve.services.loading import ModelLoader
from embedserve.services.reading import TruncateSide, reader
from embedserve.services.shorter import cut, warnings_of
from embedserve.services.tokenizing import TokenizerPool, is_quick
from embedserve.services.vectors import VectorSource
from embedserve.types import InputType, Lane, Vectors


@dataclass(frozen=True)
class EmbedRequest:
    """What a dialect asks for, already made a list."""

    model: str
    texts: Sequence[str]
    truncate: bool = True
    """False: a text over the model's length is an error; nothing is cut."""
    dimensions: int | None = None
    """Leading dimensions to keep, re-normalised; None or too many means all."""
    max_tokens: int | None = None
    """A shorter length limit than the model's own."""
    keep_alive_s: float | None = None
    """How long the model stays unused after this; negative: as long as there is room."""
    timeout_s: float | None = None
    """How long the caller waits; never longer than the server's own limit."""
    input_type: InputType | None = None
    """What the texts are: the model's prompt for that goes in front of each."""
    truncate_side: TruncateSide = "right"
    """Where a text is cut that is too long: `right` keeps its beginning, `left` its end."""


@dataclass(frozen=True)
class Embeddings:
    """Vectors in the order of the texts, and what they cost."""

    vectors: Vectors
    tokens: int
    """Tokens that were embedded, special ones included, after truncation."""
    truncated: tuple[int, ...]
    """Positions of the texts that were cut."""
    load_ns: int
    total_ns: int
    warnings: tuple[str, ...] = ()
    """What the caller should know of these vectors."""


@dataclass(frozen=True)
class EmbedLimits:
    """What one request may ask for."""

    small_request_tokens: int
    """Requests up to this many tokens go ahead of larger ones."""
    max_texts: int
    max_text_bytes: int
    timeout_s: float = 0
    """0: none."""
    batch_tokens: int = 0
    """Tokens that run together at most; for those who ask."""
    queue_tokens: int = 0
    """Tokens that may wait; for those who ask."""


class EmbeddingService:
    """Embed requests of any size; small ones go ahead of large ones."""

    def __init__(
        self, encoders: Encoders, cache: VectorCache, limits: EmbedLimits, *, threads: int
    ) -> None:
        """Tokenize on so many threads."""
        self._encoders = encoders
        self._source = VectorSource(cache)
        self.admission = Admission(small_request_tokens=limits.small_request_tokens)
        self._tokenizers = TokenizerPool(threads, max_text_bytes=limits.max_text_bytes)
        self._models = ModelLoader(encoders, "embedding")
        self.limits = limits
        self.tokenizer_threads = threads

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Return one vector for each text; all or nothing.

        Raises ModelNotFoundError, InputTooLongError, TooLargeError, OverloadedError, ModelError,
        and DeadlineError when its time is over.
        """
        self._refuse_too_many(request.texts)
        # What waits for a model, a tokenizer or a worker is dropped; the engine itself is told the
        # deadline too.
        async with deadline(request.timeout_s, self.limits.timeout_s) as deadline_s:
            return await self._embed(request, deadline_s=deadline_s)

    async def _embed(self, request: EmbedRequest, *, deadline_s: float | None) -> Embeddings:
        started = time.perf_counter_ns()
        encoder = await self._models.encoder(request.model)
        loaded = time.perf_counter_ns()
        encoder.touch()  # what the cache answers is use too
        try:
            read = reader(
                encoder,
                input_type=request.input_type,
                truncate_side=request.truncate_side,
                max_tokens=request.max_tokens,
            )
            with self._place(encoder, request) as let_into:
                texts = await self._tokenizers.tokenize(read, request.texts)
            truncated = tuple(i for i, text in enumerate(texts) if text.is_truncated)
            if truncated and not request.truncate:
                raise InputTooLongError(
                    "the input length exceeds the context length", positions=truncated
                )
            tokens = sum(len(text.ids) for text in texts)
            lane: Lane = "small" if tokens <= self.limits.small_request_tokens else "bulk"
            # What found a place before it was tokenized is not refused after all that.
            when_full: WhenFull = "queue" if lane == let_into else "refuse"
            vectors = await self._source.vectors(
                encoder, texts, lane=lane, deadline_s=deadline_s, when_full=when_full
            )
        finally:
            if request.keep_alive_s is not None:
                self._encoders.keep(encoder, request.keep_alive_s)
        return Embeddings(
            vectors=cut(vectors, request.dimensions, encoder.spec),
            tokens=tokens,
            truncated=truncated,
            load_ns=loaded - started,
            total_ns=time.perf_counter_ns() - started,
            warnings=tuple(warnings_of(request.model, request.dimensions, encoder.spec)),
        )

    def _place(
        self, encoder: Encoder, request: EmbedRequest
    ) -> AbstractContextManager[Lane | None]:
        """Ask for a place before texts are tokenized, where that takes longer than to ask."""
        if is_quick(request.texts):
            return nullcontext()
        longest = encoder.spec.max_tokens
        tokens = forecast(request.texts, min(request.max_tokens or longest, longest))
        return self.admission.place(encoder, tokens)

    async def read_tokens(
        self, model: str, texts: Sequence[str], *, with_special: bool
    ) -> list[TokenSpans]:
        """Return every token of each text, none cut off.

        Raises ModelNotFoundError, and TooLargeError for a text of which not all would be read.
        """
        self._refuse_too_many(texts)
        wrong = [i for i, text in enumerate(texts) if len(text) > MOST_CHARS]
        if wrong:
            raise TooLargeError(
                f"Text {wrong[0]} has more than {MOST_CHARS} characters, the most that is read of "
                "any text. Send it in parts.",
                positions=wrong,
            )
        encoder = await self._models.encoder(model)
        encoder.touch()
        read = partial(encoder.read_tokens, with_special=with_special)
        return await self._tokenizers.tokenize(read, texts)

    async def write_tokens(
        self, model: str, ids: Sequence[Sequence[int]], *, without_special: bool
    ) -> list[str]:
        """Return the text of each list of ids.

        Raises ModelNotFoundError, and InvalidRequestError for an id that the model does not know.
        """
        self._refuse_too_many(ids)
        encoder = await self._models.encoder(model)
        encoder.touch()
        return await asyncio.to_thread(encoder.write_tokens, ids, without_special=without_special)

    def close(self) -> None:
        """Load and tokenize nothing more."""
        self._tokenizers.close()
        self._models.close()

    def _refuse_too_many(self, texts: Sequence[object]) -> None:
        most = self.limits.max_texts
        if len(texts) > most:
            raise TooLargeError(
                f"{len(texts)} texts in one request; at most {most} are allowed "
                "(EMBEDSERVE_MAX_REQUEST_TEXTS). Send them in several requests."
            )
