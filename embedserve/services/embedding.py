"""Texts to vectors for the API dialects: one service call behind all of them."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from embedserve.engine.cache import VectorCache
from embedserve.engine.encoder import Encoder
from embedserve.errors import InputTooLongError, TooLargeError
from embedserve.services.encoders import Encoders
from embedserve.services.shorter import cut, warnings_of
from embedserve.services.vectors import VectorSource
from embedserve.types import Lane, Vectors

# Models that may be loading at once; more wait for their turn.
_LOADERS = 4


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


class EmbeddingService:
    """Embed requests of any size; small ones go ahead of large ones."""

    def __init__(
        self,
        encoders: Encoders,
        cache: VectorCache,
        *,
        small_request_tokens: int,
        max_texts: int,
    ) -> None:
        self._encoders = encoders
        self._source = VectorSource(cache)
        self._loaders = ThreadPoolExecutor(_LOADERS, thread_name_prefix="load")
        self._loading: dict[str, asyncio.Future[Encoder]] = {}
        self._small_request_tokens = small_request_tokens
        self._max_texts = max_texts

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Return one vector for each text; all or nothing.

        Raises ModelNotFoundError, InputTooLongError, TooLargeError, OverloadedError, ModelError.
        """
        started = time.perf_counter_ns()
        if len(request.texts) > self._max_texts:
            raise TooLargeError(
                f"{len(request.texts)} texts in one request; at most {self._max_texts} are "
                "allowed (EMBEDSERVE_MAX_REQUEST_TEXTS). Send them in several requests."
            )
        encoder = await self._encoder(request.model)
        loaded = time.perf_counter_ns()
        # Tokenizing is CPU work; beyond a short text it leaves the event loop.
        is_short = sum(map(len, request.texts)) <= 2_000
        texts = (
            encoder.tokenize(request.texts, max_tokens=request.max_tokens)
            if is_short
            else await asyncio.to_thread(
                encoder.tokenize, request.texts, max_tokens=request.max_tokens
            )
        )
        truncated = tuple(i for i, text in enumerate(texts) if text.is_truncated)
        if truncated and not request.truncate:
            raise InputTooLongError("the input length exceeds the context length")
        tokens = sum(len(text.ids) for text in texts)
        lane: Lane = "small" if tokens <= self._small_request_tokens else "bulk"
        vectors = await self._source.vectors(encoder, texts, lane=lane)
        return Embeddings(
            vectors=cut(vectors, request.dimensions, encoder.spec),
            tokens=tokens,
            truncated=truncated,
            load_ns=loaded - started,
            total_ns=time.perf_counter_ns() - started,
            warnings=tuple(warnings_of(request.model, request.dimensions, encoder.spec)),
        )

    async def _encoder(self, name: str) -> Encoder:
        if encoder := self._encoders.find(name):
            return encoder
        # One thread for each model that is loading, however many wait for it, and none of those
        # that tokenize: the other models go on.
        if name not in self._loading:
            loop = asyncio.get_running_loop()
            self._loading[name] = loop.run_in_executor(self._loaders, self._encoders.get, name)
            self._loading[name].add_done_callback(lambda _: self._loading.pop(name))
        return await asyncio.shield(self._loading[name])
