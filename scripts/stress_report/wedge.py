"""Wedge: texts that make the engine fail, end its thread, or never come back.

In this process, with the real scheduler, tokenizer and engine; only the poison is added.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from embedserve.engine.backend import BACKENDS, Backend, BackendOptions
from embedserve.engine.cores import available_cores
from embedserve.engine.scheduler import Scheduler
from embedserve.engine.tokenizer import ModelTokenizer
from embedserve.errors import EmbedserveError, ModelError
from embedserve.models.installed import resolve
from embedserve.services.models import encoder_spec
from embedserve.types import BatchTokens, EncoderSpec, TokenIds, Vectors
from scripts.stress_report.client import MODEL
from scripts.stress_report.targets import Figures
from scripts.stress_report.texts import Texts

WORKER_TIMEOUT_S = 0.5
KINDS = ("error", "exit", "hang")
_TEXTS, _TOKENS, _REQUEST_TEXTS, _PLACE = 64, 32, 8, 5
_ANSWER_S = 60
# Speed is back when in this long at least this share of it is there.
_WINDOW_S, _BACK_SHARE = 0.25, 0.8


class Poisoned:
    """A real engine that some texts break; `released` ends those that hang."""

    def __init__(self, backend: Backend, poisons: dict[bytes, str]) -> None:
        self.released = threading.Event()
        self._backend = backend
        self._poisons = poisons

    def bucket(self, length: int) -> int:
        """Return the engine's own bucket."""
        return self._backend.bucket(length)

    def fixed_texts(self, bucket: int) -> int | None:
        """Return the engine's own number."""
        return self._backend.fixed_texts(bucket)

    def run(self, texts: Sequence[TokenIds], *, is_alone: bool = False) -> Vectors:
        """Run the texts unless there is poison among them."""
        for ids in texts:
            self._break(self._poisons.get(ids.tobytes(), ""))
        return self._backend.run(texts, is_alone=is_alone)

    def close(self) -> None:
        """Free the engine."""
        self.released.set()
        self._backend.close()

    def _break(self, kind: str) -> None:
        if kind == "error":
            raise ValueError("poison")
        if kind == "exit":
            raise SystemExit("poison")
        if kind == "hang":
            self.released.wait(_ANSWER_S)


@dataclass
class Watched:
    """What the callers saw."""

    is_over: threading.Event = field(default_factory=threading.Event)
    finished_s: list[float] = field(default_factory=list)
    """When each request was answered, of `time.perf_counter`."""
    failed: int = 0
    differing: int = 0

    def rate(self, begin_s: float, end_s: float) -> float:
        """Return the requests per second that were answered between two moments."""
        return sum(begin_s <= one < end_s for one in self.finished_s) / (end_s - begin_s)


class Engine:
    """A scheduler, texts that are known, and callers that send them over and over."""

    def __init__(self, spec: EncoderSpec, scheduler: Scheduler) -> None:
        self._dimensions = spec.dimensions
        tokenizer = ModelTokenizer(spec.tokenizer_path)
        every = Texts(6).make(_TEXTS + len(KINDS), _TOKENS)
        ids = [tokenizer.tokenize(text, spec.max_tokens).ids for text in every]
        self._ids, self._poisons = ids[:_TEXTS], dict(zip(KINDS, ids[_TEXTS:], strict=True))
        self._scheduler = scheduler
        self.backend = Poisoned(
            _load(spec, scheduler.workers), {row.tobytes(): k for k, row in self._poisons.items()}
        )
        self._expected = self._submit(self._ids).result(_ANSWER_S)

    def poison(self, kind: str) -> Future[Vectors]:
        """Submit a request that has poison at one place."""
        request = list(self._ids[:_REQUEST_TEXTS])
        request[_PLACE] = self._poisons[kind]
        return self._submit(request)

    @contextmanager
    def load(self) -> Iterator[Watched]:
        """Keep callers at work, twice as many as there are workers."""
        watched = Watched()
        threads = [
            threading.Thread(target=self._call, args=(watched, number), daemon=True)
            for number in range(2 * self._scheduler.workers)
        ]
        for thread in threads:
            thread.start()
        try:
            yield watched
        finally:
            watched.is_over.set()
            for thread in threads:
                thread.join(_ANSWER_S)

    def _call(self, watched: Watched, number: int) -> None:
        chosen = np.random.default_rng(number)
        while not watched.is_over.is_set():
            rows = chosen.integers(_TEXTS, size=_REQUEST_TEXTS)
            try:
                vectors = self._submit([self._ids[row] for row in rows]).result(_ANSWER_S)
            except (EmbedserveError, TimeoutError):
                watched.failed += 1
                continue
            expected = self._expected[rows]
            watched.differing += not np.array_equal(vectors.view("u4"), expected.view("u4"))
            watched.finished_s.append(time.perf_counter())

    def _submit(self, texts: Sequence[TokenIds]) -> Future[Vectors]:
        return self._scheduler.submit(
            self.backend, texts, dimensions=self._dimensions, lane="small"
        )


def wedge(models: Path, steady_s: float) -> Figures:
    """Poison a working engine in each way, and watch it for `steady_s` before and after."""
    logger = logging.getLogger("embedserve.engine")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # failures are the point
    scheduler = Scheduler(
        workers=available_cores(),
        batch_tokens=BatchTokens(),
        queue_tokens=1_000_000,
        worker_timeout_s=WORKER_TIMEOUT_S,
    )
    engine = Engine(encoder_spec(resolve(models, MODEL)), scheduler)
    figures: Figures = {}
    try:
        for kind in KINDS:
            figures |= _poisoned(engine, kind, steady_s)
    finally:
        engine.backend.released.set()
        scheduler.close()
        engine.backend.close()
        logger.setLevel(level)
    return {**figures, "workers replaced": scheduler.restarts}


def _poisoned(engine: Engine, kind: str, steady_s: float) -> Figures:
    with engine.load() as watched:
        time.sleep(steady_s)
        poisoned_s = time.perf_counter()
        usual = watched.rate(poisoned_s - 0.8 * steady_s, poisoned_s)  # the first moments are none
        error = engine.poison(kind).exception(_ANSWER_S)
        failed_s = time.perf_counter()
        time.sleep(steady_s)
        back_s = _back_s(watched, failed_s, usual)
        while np.isnan(back_s) and time.perf_counter() < failed_s + 10:
            time.sleep(_WINDOW_S)
            back_s = _back_s(watched, failed_s, usual)
    is_told = isinstance(error, ModelError) and f"Text {_PLACE} " in str(error)
    return {
        f"{kind}: poison told by its place": is_told,
        f"{kind}: told after, s": failed_s - poisoned_s,
        f"{kind}: speed back after, s": back_s - poisoned_s,
        f"{kind}: requests/s before": usual,
        f"{kind}: other texts that failed": watched.failed,
        f"{kind}: other vectors that differ": watched.differing,
    }


def _back_s(watched: Watched, since_s: float, usual: float) -> float:
    """Return when the speed was back, of `time.perf_counter`; NaN when it is not."""
    end_s = time.perf_counter() - _WINDOW_S
    for begin_s in np.arange(since_s, end_s, _WINDOW_S / 10):
        if watched.rate(begin_s, begin_s + _WINDOW_S) >= _BACK_SHARE * usual:
            return float(begin_s)
    return float("nan")


def _load(spec: EncoderSpec, threads: int) -> Backend:
    options = BackendOptions(
        device="cpu",
        threads=threads,
        arithmetic=spec.arithmetic,
        pad_token_id=spec.pad_token_id,
        max_tokens=spec.max_tokens,
        dynamic_group=spec.dynamic_group,
    )
    return BACKENDS.load(spec.engine).load(spec.onnx_path, options)
