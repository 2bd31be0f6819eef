"""Texts to vectors for the API dialects: one service call behind all of them."""

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial

from embedserve.engine.cache import VectorCache
from embedserve.engine.encoder import Encoder
from embedserve.errors import InputTooLongError, InvalidRequestError
from embedserve.services.admission import Admission, forecast
from embedserve.services.deadline import deadline
from embedserve.services.encoders import Encoders
from embedserve.services.loading import ModelLoader
from embedserve.services.reading import TruncateSide, prompt_of, reader
from embedserve.services.rows import RowSource, Work, refuse_too_many
from embedserve.services.shorter import cut, warnings_of
from embedserve.services.tokenizing import TokenizerPool, is_quick
from embedserve.services.tokens import TokenService
from embedserve.services.vectors import VectorSource
from embedserve.types import InputType, Vectors


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
    is_exact_size: bool = False
    """True: `dimensions` that the model cannot give are an error."""
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
        self.admission = Admission(small_request_tokens=limits.small_request_tokens)
        self._source = RowSource(
            encoders, VectorSource(cache), self.admission, limits.small_request_tokens
        )
        self._tokenizers = TokenizerPool(threads, max_text_bytes=limits.max_text_bytes)
        self._models = ModelLoader(encoders, "embedding")
        self.limits = limits
        self.tokenizer_threads = threads
        self.tokens = TokenService(
            self._models,
            self._tokenizers,
            max_texts=limits.max_texts,
            timeout_s=limits.timeout_s,
        )

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """Return one vector for each text; all or nothing.

        Raises ModelNotFoundError, InputTooLongError, TooLargeError, OverloadedError, ModelError,
        InvalidRequestError, and DeadlineError when its time is over.
        """
        async with self.time_for(request) as deadline_s:
            return await self.embed_until(deadline_s, request)

    def time_for(self, request: EmbedRequest) -> AbstractAsyncContextManager[float | None]:
        """Keep the request's deadline, or the server's; see `services.deadline`."""
        return deadline(request.timeout_s, self.limits.timeout_s)

    async def embed_until(self, deadline_s: float | None, request: EmbedRequest) -> Embeddings:
        """Embed within `time_for`, to which the deadline belongs; raises as `embed`."""
        refuse_too_many(
            request.texts,
            self.limits.max_texts,
            what="texts",
            instead="Send them in several requests.",
        )
        started = time.perf_counter_ns()
        # What waits for a model, a tokenizer or a worker is dropped; the engine itself is told the
        # deadline too.
        encoder = await self._models.encoder(request.model)
        loaded = time.perf_counter_ns()
        work = self._work(encoder, request)
        found = await self._source.rows(encoder, work, deadline_s=deadline_s)
        return Embeddings(
            vectors=cut(found.vectors, request.dimensions, encoder.spec),
            tokens=found.tokens,
            truncated=found.truncated,
            load_ns=loaded - started,
            total_ns=time.perf_counter_ns() - started,
            warnings=tuple(warnings_of(request.model, request.dimensions, encoder.spec)),
        )

    def _work(self, encoder: Encoder, request: EmbedRequest) -> Work:
        """Return what is to be done; raise InvalidRequestError for what cannot be."""
        if request.is_exact_size:
            _check_dimensions(request.dimensions, encoder.spec.dimensions)
        prompt, texts = prompt_of(encoder.spec, request.input_type), request.texts
        longest = encoder.spec.max_tokens
        most = min(request.max_tokens or longest, longest)
        read = reader(
            encoder,
            prompt=prompt,
            truncate_side=request.truncate_side,
            max_tokens=request.max_tokens,
        )
        is_soon = is_quick(texts, prompt_chars=len(prompt))
        return Work(
            partial(self._tokenizers.tokenize, read, texts, prompt_chars=len(prompt)),
            None if is_soon else partial(forecast, texts, most, prompt=prompt),
            refuse_cut=None if request.truncate else _too_long,
            keep_alive_s=request.keep_alive_s,
        )

    def close(self) -> None:
        """Load and tokenize nothing more."""
        self._tokenizers.close()
        self._models.close()


def _too_long(positions: tuple[int, ...]) -> InputTooLongError:
    return InputTooLongError("the input length exceeds the context length", positions=positions)


def _check_dimensions(wanted: int | None, most: int) -> None:
    if wanted is not None and not 1 <= wanted <= most:
        raise InvalidRequestError(
            f"Invalid value for 'dimensions' = {wanted}. This model gives {most}; ask for 1 to "
            f"{most}, or leave it out.",
            field="dimensions",
        )
