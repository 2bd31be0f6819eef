"""One model ready to embed: its tokenizer, its graph, and a place in the scheduler."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from embedserve.engine.backend import BACKENDS, Backend, BackendOptions
from embedserve.engine.requests import WhenFull
from embedserve.engine.scheduler import Scheduler
from embedserve.engine.tokenizer import ModelTokenizer, TokenizedText, TokenSpans
from embedserve.engine.two_graphs import TwoGraphs
from embedserve.errors import ModelError, TextFailedError
from embedserve.types import EncoderSpec, Lane, Vectors

# Texts that one blocking call keeps in the queue, so that a huge document never fills it.
SLICE = 256


class Encoder:
    """Embed texts with one model; safe from any number of threads."""

    def __init__(
        self, spec: EncoderSpec, scheduler: Scheduler, *, device: str, alone_threads: int = 1
    ) -> None:
        """Load the model; more than one `alone_threads`, for a text that is alone, load it twice.

        Raises ModelError.
        """
        if spec.engine not in BACKENDS.names():
            raise ModelError(
                f"The model was pulled for engine `{spec.engine}`, which is not installed here. "
                "Install that plug-in, or pull the model again with `--engine onnxruntime`."
            )
        self.spec = spec
        self._tokenizer = ModelTokenizer(spec.tokenizer_path)
        options = BackendOptions(
            device=device,
            threads=scheduler.workers,
            arithmetic=spec.arithmetic,
            pad_token_id=spec.pad_token_id,
            max_tokens=spec.max_tokens,
            dynamic_group=spec.dynamic_group,
        )
        self._backend = _load(spec, options, alone_threads=alone_threads)
        self._scheduler = scheduler
        self._running: set[Future[Vectors]] = set()
        self.used_s = time.monotonic()
        """When it was last asked for vectors, or gave some; of `time.monotonic`."""

    @property
    def is_busy(self) -> bool:
        """Tell whether some of its texts are queued or running."""
        return bool(self._running)

    def touch(self) -> None:
        """Take note that somebody uses it now."""
        self.used_s = time.monotonic()

    def tokenize(
        self, texts: Sequence[str], *, max_tokens: int | None = None
    ) -> list[TokenizedText]:
        """Return ids cut to `max_tokens`, or to the model's own length where that is shorter."""
        limit = self._limit(max_tokens)
        return [self._tokenizer.tokenize(text, limit) for text in texts]

    def join_tokens(self, parts: Sequence[Sequence[int]]) -> TokenizedText:
        """Return ids that were tokenized apart as one text; see `ModelTokenizer.join`."""
        return self._tokenizer.join(parts, self.spec.max_tokens)

    def tokenize_query(self, query: str) -> list[int]:
        """Return a reranker's query for `tokenize_pairs`; see `ModelTokenizer.tokenize_query`."""
        return self._tokenizer.tokenize_query(query, self.spec.max_tokens)

    def tokenize_pairs(
        self, query: Sequence[int], texts: Sequence[str], *, max_text_tokens: int | None = None
    ) -> list[TokenizedText]:
        """Return the ids of `query` with each text, for a reranker; texts are cut to what fits."""
        return self._tokenizer.tokenize_pairs(
            query, texts, self.spec.max_tokens, max_text_tokens=max_text_tokens
        )

    def tokenize_ends(
        self, texts: Sequence[str], *, prompt: str, max_tokens: int | None = None
    ) -> list[TokenizedText]:
        """Return the ids of `prompt` with each text, as `tokenize`, but texts lose their beginning.

        See `ModelTokenizer.tokenize_end`.
        """
        limit = self._limit(max_tokens)
        return [self._tokenizer.tokenize_end(prompt, text, limit) for text in texts]

    def read_tokens(
        self, texts: Sequence[str], *, with_special: bool, with_offsets: bool
    ) -> list[TokenSpans]:
        """Return every token of each text, of any length; see `ModelTokenizer.read`."""
        return [
            self._tokenizer.read(text, with_special=with_special, with_offsets=with_offsets)
            for text in texts
        ]

    def write_tokens(self, ids: Sequence[Sequence[int]], *, without_special: bool) -> list[str]:
        """Return the text of each list of ids; see `ModelTokenizer.write`."""
        return [self._tokenizer.write(one, without_special=without_special) for one in ids]

    def excess_s(self, lane: Lane, tokens: int, *, coming: int) -> float:
        """Return how long until `tokens` would not be refused; see `Scheduler.excess_s`."""
        return self._scheduler.excess_s(self._backend, lane, tokens, coming=coming)

    def submit(
        self,
        texts: Sequence[TokenizedText],
        *,
        lane: Lane,
        when_full: WhenFull = "refuse",
        timeout_s: float | None = None,
    ) -> Future[Vectors]:
        """Queue tokenized texts; the future gives (len(texts), dimensions) float32 in order.

        What has not begun after `timeout_s` is dropped: the future gives OverloadedError then.
        Raises OverloadedError when the lane is full, unless `when_full` says otherwise.
        """
        future = self._scheduler.submit(
            self._backend,
            [text.ids for text in texts],
            dimensions=self.spec.dimensions,
            lane=lane,
            when_full=when_full,
            timeout_s=timeout_s,
        )
        # Adding to a set and discarding from it are atomic: no lock for each request.
        self._running.add(future)
        future.add_done_callback(self._end)
        return future

    def encode(self, texts: Sequence[str], *, lane: Lane = "bulk") -> Vectors:
        """Embed texts and wait for them, also for room in the queue.

        Text beyond the model's length is cut off.
        """
        return self._in_slices(self.tokenize, texts, lane)

    def score(self, query: str, texts: Sequence[str], *, lane: Lane = "bulk") -> Vectors:
        """Return a reranker's logit for each text, (len(texts), 1) float32, and wait for them."""
        return self._in_slices(
            partial(self.tokenize_pairs, self.tokenize_query(query)), texts, lane
        )

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return where each token of each text lies; see `types.TokenOffsets`."""
        return self._tokenizer.offsets(texts)

    def close(self) -> None:
        """Free the graph. Texts that are still queued fail."""
        self._backend.close()

    def _in_slices(
        self,
        read: Callable[[Sequence[str]], list[TokenizedText]],
        texts: Sequence[str],
        lane: Lane,
    ) -> Vectors:
        """Tokenize and run some texts at a time, and wait for each lot; failures name the text."""
        parts = [np.empty((0, self.spec.dimensions), dtype=np.float32)]
        for first in range(0, len(texts), SLICE):
            tokenized = read(texts[first : first + SLICE])
            try:
                parts.append(self.submit(tokenized, lane=lane, when_full="wait").result())
            except TextFailedError as error:
                raise error.at([first + at for at in error.positions]) from error
        return np.concatenate(parts)

    def _limit(self, max_tokens: int | None) -> int:
        limit = min(max_tokens or self.spec.max_tokens, self.spec.max_tokens)
        return max(limit, self._tokenizer.special_tokens)

    def _end(self, future: Future[Vectors]) -> None:
        self._running.discard(future)
        self.used_s = time.monotonic()


def _load(spec: EncoderSpec, options: BackendOptions, *, alone_threads: int) -> Backend:
    engine = BACKENDS.load(spec.engine)
    usual = engine.load(spec.onnx_path, options)
    if alone_threads == 1:
        return usual
    wide = engine.load(spec.onnx_path, replace(options, threads=1, run_threads=alone_threads))
    return TwoGraphs(usual, wide)
