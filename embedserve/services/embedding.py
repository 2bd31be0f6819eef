"""Texts to vectors for the API dialects: one service call behind all of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from embedserve.engine.cache import VectorCache
from embedserve.errors import InputTooLongError, TooLargeError
from embedserve.services.deadlines import in_time
from embedserve.services.encoders import Encoders
from embedserve.services.loading import ModelLoader
from embedserve.services.shorter import cut, warnings_of
from embedserve.services.tokenizing import TokenizerPool
from embedserve.services.vectors import VectorSource
from embedserve.types import Lane, Vectors


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


class EmbeddingService:
    """Embed requests of any size; small ones go ahead of large ones."""

    def __init__(
        self, encoders: Encoders, cache: VectorCache, limits: EmbedLimits, *, threads: int
    ) -> None:
        """Tokenize on so many threads."""
        self._encoders = encoders
        self._source = VectorSource(cache)
        self._tokenizers = TokenizerPool(threads, max_text_bytes=limits.max_text_bytes)
        self._models = ModelLoader(encoders, "embedding")
        self._limits = limits

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Return one vector for each text; all or nothing.

        Raises ModelNotFoundError, InputTooLongError, TooLargeError, OverloadedError, ModelError,
        and DeadlineError when its time is over.
        """
        if len(request.texts) > self._limits.max_texts:
            raise TooLargeError(
                f"{len(request.texts)} texts in one request; at most {self._limits.max_texts} are "
                "allowed (EMBEDSERVE_MAX_REQUEST_TEXTS). Send them in several requests."
            )
        return await in_time(
            lambda deadline_s: self._embed(request, deadline_s=deadline_s),
            timeout_s=request.timeout_s,
            limit_s=self._limits.timeout_s,
        )

    async def _embed(self, request: EmbedRequest, *, deadline_s: float | None) -> Embeddings:
        started = time.perf_counter_ns()
        encoder = await self._models.encoder(request.model)
        loaded = time.perf_counter_ns()
        encoder.touch()  # what the cache answers is use too
        try:
            texts = await self._tokenizers.tokenize(
                encoder, request.texts, max_tokens=request.max_tokens
            )
            truncated = tuple(i for i, text in enumerate(texts) if text.is_truncated)
            if truncated and not request.truncate:
                raise InputTooLongError("the input length exceeds the context length")
            tokens = sum(len(text.ids) for text in texts)
            lane: Lane = "small" if tokens <= self._limits.small_request_tokens else "bulk"
            vectors = await self._source.vectors(encoder, texts, lane=lane, deadline_s=deadline_s)
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

    def close(self) -> None:
        """Load and tokenize nothing more."""
        self._tokenizers.close()
        self._models.close()
