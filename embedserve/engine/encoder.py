"""One model ready to embed: its tokenizer, its graph, and a place in the scheduler."""

import time
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from embedserve.engine.backend import BACKENDS, BackendOptions
from embedserve.engine.scheduler import Scheduler
from embedserve.engine.tokenizer import ModelTokenizer, TokenizedText
from embedserve.errors import ModelError
from embedserve.types import EncoderSpec, Lane, Vectors

# Texts that one blocking call keeps in the queue, so that a huge document never fills it.
SLICE = 256


class Encoder:
    """Embed texts with one model; safe from any number of threads."""

    def __init__(self, spec: EncoderSpec, scheduler: Scheduler, *, device: str) -> None:
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
        self._backend = BACKENDS.load(spec.engine).load(spec.onnx_path, options)
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
        limit = min(max_tokens or self.spec.max_tokens, self.spec.max_tokens)
        limit = max(limit, self._tokenizer.special_tokens)
        return [self._tokenizer.tokenize(text, limit) for text in texts]

    def tokenize_pairs(
        self, query: str, texts: Sequence[str], *, max_text_tokens: int | None = None
    ) -> list[TokenizedText]:
        """Return the ids of `query` with each text, for a reranker; texts are cut to what fits.

        Raises InputTooLongError for a query that fills the model by itself.
        """
        return self._tokenizer.tokenize_pairs(
            query, texts, self.spec.max_tokens, max_text_tokens=max_text_tokens
        )

    def submit(
        self,
        texts: Sequence[TokenizedText],
        *,
        lane: Lane,
        is_patient: bool = False,
        timeout_s: float | None = None,
    ) -> Future[Vectors]:
        """Queue tokenized texts; the future gives (len(texts), dimensions) float32 in order.

        What has not begun after `timeout_s` is dropped: the future gives OverloadedError then.
        Raises OverloadedError when the lane is full, unless the caller is patient.
        """
        future = self._scheduler.submit(
            self._backend,
            [text.ids for text in texts],
            dimensions=self.spec.dimensions,
            lane=lane,
            is_patient=is_patient,
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
        parts = [
            self.submit(
                self.tokenize(texts[first : first + SLICE]), lane=lane, is_patient=True
            ).result()
            for first in range(0, len(texts), SLICE)
        ]
        empty = np.empty((0, self.spec.dimensions), dtype=np.float32)
        return np.concatenate([empty, *parts])

    def score(self, query: str, texts: Sequence[str], *, lane: Lane = "bulk") -> Vectors:
        """Return a reranker's logit for each text, (len(texts), 1) float32, and wait for them."""
        parts = [
            self.submit(
                self.tokenize_pairs(query, texts[first : first + SLICE]), lane=lane, is_patient=True
            ).result()
            for first in range(0, len(texts), SLICE)
        ]
        return np.concatenate([np.empty((0, 1), dtype=np.float32), *parts])

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return where each token of each text lies; see `types.TokenOffsets`."""
        return self._tokenizer.offsets(texts)

    def close(self) -> None:
        """Free the graph. Texts that are still queued fail."""
        self._backend.close()

    def _end(self, future: Future[Vectors]) -> None:
        self._running.discard(future)
        self.used_s = time.monotonic()
