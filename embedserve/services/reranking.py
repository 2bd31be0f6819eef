"""Documents in the order of their relevance to a query: one service call behind all dialects."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from embedserve.engine.cache import VectorCache
from embedserve.engine.encoder import Encoder
from embedserve.engine.requests import WhenFull
from embedserve.engine.tokenizer import TokenizedText
from embedserve.errors import InputTooLongError, TooLargeError
from embedserve.services.admission import Admission, forecast_pairs
from embedserve.services.deadline import deadline
from embedserve.services.embedding import EmbedLimits
from embedserve.services.encoders import Encoders
from embedserve.services.loading import ModelLoader
from embedserve.services.tokenizing import TokenizerPool, is_quick
from embedserve.services.vectors import VectorSource
from embedserve.types import Lane


@dataclass(frozen=True)
class RerankRequest:
    """What a dialect asks for."""

    query: str
    documents: Sequence[str]
    model: str = ""
    """Empty: the only reranker that is installed."""
    truncate: bool = True
    """False: a document that does not fit is an error. A query is never cut."""
    max_document_tokens: int | None = None
    """A shorter limit for each document than what the query leaves of the model's length."""
    keep_alive_s: float | None = None
    """How long the model stays unused after this; negative: as long as there is room."""
    timeout_s: float | None = None
    """How long the caller waits; never longer than the server's own limit."""


@dataclass(frozen=True)
class Ranking:
    """The documents' scores, and what they cost."""

    model: str
    logits: NDArray[np.float32]
    """(documents,) float32, as the model's classifier gives them."""
    order: tuple[int, ...]
    """Positions of the documents, the most relevant first; equals as they came."""
    tokens: int
    """Tokens of all pairs, special ones included, after truncation."""
    truncated: tuple[int, ...]
    """Positions of the documents that were cut."""
    load_ns: int
    total_ns: int

    def scores(self, *, is_raw: bool = False) -> list[float]:
        """Return a score for each document: 0 to 1, the logit's sigmoid; or the logit itself."""
        logits = self.logits.astype(np.float64)
        # exp(-log(1 + exp(-x))): no overflow for any logit.
        scores = logits if is_raw else np.exp(-np.logaddexp(0.0, -logits))
        floats: list[float] = scores.tolist()
        return floats


class RerankingService:
    """Score queries with documents; requests of few tokens go ahead of larger ones."""

    def __init__(
        self,
        encoders: Encoders,
        cache: VectorCache,
        limits: EmbedLimits,
        *,
        threads: int,
        admission: Admission | None = None,
    ) -> None:
        """Tokenize on so many threads; who else fills the same queue shares the `admission`."""
        self._encoders = encoders
        self._admission = admission or Admission(small_request_tokens=limits.small_request_tokens)
        self._models = ModelLoader(encoders, "reranker")
        self._source = VectorSource(cache)
        self._tokenizers = TokenizerPool(threads, max_text_bytes=limits.max_text_bytes)
        self._limits = limits

    async def rank(self, request: RerankRequest) -> Ranking:
        """Score every document; all or nothing.

        Raises ModelNotFoundError, InvalidRequestError for a model that is no reranker,
        InputTooLongError, TooLargeError, OverloadedError, ModelError, and DeadlineError when its
        time is over.
        """
        if len(request.documents) > self._limits.max_texts:
            raise TooLargeError(
                f"{len(request.documents)} documents in one request; at most "
                f"{self._limits.max_texts} are allowed (EMBEDSERVE_MAX_REQUEST_TEXTS). Rank the "
                "most promising ones only, or send them in several requests."
            )
        async with deadline(request.timeout_s, self._limits.timeout_s) as deadline_s:
            return await self._rank(request, deadline_s)

    async def _rank(self, request: RerankRequest, deadline_s: float | None) -> Ranking:
        started = time.perf_counter_ns()
        model = request.model.strip() or await self._models.only_name()
        encoder = await self._models.encoder(model)
        loaded = time.perf_counter_ns()
        encoder.touch()  # what the cache answers is use too
        try:
            read = partial(
                encoder.tokenize_pairs,
                request.query,
                max_text_tokens=request.max_document_tokens,
            )
            with self._place(encoder, request) as let_into:
                pairs = await self._tokenizers.tokenize(
                    read, request.documents, shared_chars=len(request.query)
                )
            truncated = _truncated(request, pairs)
            tokens = sum(len(pair.ids) for pair in pairs)
            lane: Lane = "small" if tokens <= self._limits.small_request_tokens else "bulk"
            # What found a place before it was tokenized is not refused after all that.
            when_full: WhenFull = "queue" if lane == let_into else "refuse"
            rows = await self._source.vectors(
                encoder, pairs, lane=lane, deadline_s=deadline_s, when_full=when_full
            )
        finally:
            if request.keep_alive_s is not None:
                self._encoders.keep(encoder, request.keep_alive_s)
        logits = rows[:, 0]
        return Ranking(
            model=model,
            logits=logits,
            order=tuple(np.argsort(-logits, kind="stable").tolist()),
            tokens=tokens,
            truncated=truncated,
            load_ns=loaded - started,
            total_ns=time.perf_counter_ns() - started,
        )

    def _place(
        self, encoder: Encoder, request: RerankRequest
    ) -> AbstractContextManager[Lane | None]:
        """Ask for a place before pairs are tokenized, where that takes longer than to ask."""
        if is_quick(request.documents, shared_chars=len(request.query)):
            return nullcontext()
        tokens = forecast_pairs(
            request.query,
            request.documents,
            encoder.spec.max_tokens,
            max_text_tokens=request.max_document_tokens,
        )
        return self._admission.place(encoder, tokens)

    def close(self) -> None:
        """Load and tokenize nothing more."""
        self._tokenizers.close()
        self._models.close()


def _truncated(request: RerankRequest, pairs: Sequence[TokenizedText]) -> tuple[int, ...]:
    truncated = tuple(i for i, pair in enumerate(pairs) if pair.is_truncated)
    if truncated and not request.truncate:
        raise InputTooLongError(
            f"Document {truncated[0]} is longer than what fits beside the query (or than "
            "`max_tokens_per_doc`), and `truncate` is false. Shorten it, or let it be cut.",
            positions=truncated,
        )
    return truncated
