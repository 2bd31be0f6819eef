"""Documents in the order of their relevance to a query: one service call behind all dialects."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from embedserve.engine.cache import VectorCache
from embedserve.engine.encoder import Encoder
from embedserve.engine.tokenizer import TokenizedText
from embedserve.errors import InputTooLongError
from embedserve.services.admission import Admission, forecast_pairs
from embedserve.services.deadline import deadline
from embedserve.services.embedding import EmbedLimits
from embedserve.services.encoders import Encoders
from embedserve.services.loading import ModelLoader
from embedserve.services.rows import RowSource, Work, refuse_too_many
from embedserve.services.tokenizing import TokenizerPool, is_quick
from embedserve.services.vectors import VectorSource


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
        self._source = RowSource(
            encoders,
            VectorSource(cache),
            admission or Admission(small_request_tokens=limits.small_request_tokens),
            limits.small_request_tokens,
        )
        self._models = ModelLoader(encoders, "reranker")
        self._tokenizers = TokenizerPool(threads, max_text_bytes=limits.max_text_bytes)
        self._limits = limits

    async def rank(self, request: RerankRequest) -> Ranking:
        """Score every document; all or nothing.

        Raises ModelNotFoundError, InvalidRequestError for a model that is no reranker,
        InputTooLongError, TooLargeError, OverloadedError, ModelError, and DeadlineError when its
        time is over.
        """
        refuse_too_many(
            request.documents,
            self._limits.max_texts,
            what="documents",
            instead="Rank the most promising ones only, or send them in several requests.",
        )
        async with deadline(request.timeout_s, self._limits.timeout_s) as deadline_s:
            return await self._rank(request, deadline_s)

    async def _rank(self, request: RerankRequest, deadline_s: float | None) -> Ranking:
        started = time.perf_counter_ns()
        model = request.model.strip() or await self._models.only_name()
        encoder = await self._models.encoder(model)
        loaded = time.perf_counter_ns()
        work = self._work(encoder, request)
        found = await self._source.rows(encoder, work, deadline_s=deadline_s)
        logits = found.vectors[:, 0]
        return Ranking(
            model=model,
            logits=logits,
            order=tuple(np.argsort(-logits, kind="stable").tolist()),
            tokens=found.tokens,
            truncated=found.truncated,
            load_ns=loaded - started,
            total_ns=time.perf_counter_ns() - started,
        )

    def _work(self, encoder: Encoder, request: RerankRequest) -> Work:
        is_soon = is_quick(request.documents, other_chars=len(request.query))
        count = partial(
            forecast_pairs,
            request.query,
            request.documents,
            encoder.spec.max_tokens,
            max_text_tokens=request.max_document_tokens,
        )
        return Work(
            partial(self._tokenize, encoder, request),
            None if is_soon else count,
            refuse_cut=None if request.truncate else _too_long,
            keep_alive_s=request.keep_alive_s,
        )

    async def _tokenize(self, encoder: Encoder, request: RerankRequest) -> list[TokenizedText]:
        query = await self._tokenizers.tokenize_query(encoder.tokenize_query, request.query)
        read = partial(encoder.tokenize_pairs, query, max_text_tokens=request.max_document_tokens)
        return await self._tokenizers.tokenize(
            read, request.documents, other_chars=len(request.query)
        )

    def close(self) -> None:
        """Load and tokenize nothing more."""
        self._tokenizers.close()
        self._models.close()


def _too_long(positions: tuple[int, ...]) -> InputTooLongError:
    return InputTooLongError(
        f"Document {positions[0]} is longer than what fits beside the query (or than "
        "`max_tokens_per_doc`), and `truncate` is false. Shorten it, or let it be cut.",
        positions=positions,
    )
