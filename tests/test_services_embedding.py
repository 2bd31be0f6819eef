"""Requests from their text to their vectors: deadlines, keep-alive, texts that are too large."""

import asyncio
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from embedserve.engine.cache import VectorCache
from embedserve.engine.tokenizer import TokenizedText
from embedserve.errors import DeadlineError, OverloadedError, TooLargeError
from embedserve.services.embedding import EmbeddingService, EmbedLimits, EmbedRequest
from embedserve.services.encoders import Encoders
from embedserve.services.tokenizing import ON_LOOP_CHARS, TURN_CHARS
from embedserve.types import EncoderSpec, Lane, ModelKind, Vectors


class PatientEncoder:
    """Gives vectors when `is_quick`, else never; notes who tokenized what."""

    def __init__(self, *, is_quick: bool = True) -> None:
        path = Path("unused")
        self.spec = EncoderSpec("a" * 64, path, path, max_tokens=8, dimensions=2)
        self.is_quick = is_quick
        self.futures: list[Future[Vectors]] = []
        self.timeouts: list[float | None] = []
        self.tokenized: list[tuple[str, int]] = []
        self.touches = 0
        self.error: Exception | None = None

    def touch(self) -> None:
        self.touches += 1

    def tokenize(self, texts: list[str], *, max_tokens: int | None) -> list[TokenizedText]:
        self.tokenized.append((threading.current_thread().name, len(texts)))
        return [TokenizedText(np.array([len(text), 1]), is_truncated=False) for text in texts]

    def submit(
        self, texts: list[TokenizedText], *, lane: Lane, timeout_s: float | None
    ) -> "Future[Vectors]":
        if self.error:
            raise self.error
        future: Future[Vectors] = Future()
        self.futures.append(future)
        self.timeouts.append(timeout_s)
        if self.is_quick:
            future.set_result(np.ones((len(texts), 2), dtype=np.float32))
        return future


class OneEncoder:
    """Encoders of one model, which is loaded unless `loading` is given."""

    def __init__(self, encoder: PatientEncoder, *, loading: threading.Event | None = None) -> None:
        self.encoder = encoder
        self.loading = loading
        self.kept: list[float] = []

    def find(self, name: str, kind: ModelKind) -> PatientEncoder | None:
        return None if self.loading else self.encoder

    def get(self, name: str, kind: ModelKind) -> PatientEncoder:
        assert self.loading
        self.loading.wait(10)
        return self.encoder

    def keep(self, encoder: PatientEncoder, seconds: float) -> None:
        self.kept.append(seconds)


def service(encoders: OneEncoder, *, timeout_s: float = 0) -> EmbeddingService:
    limits = EmbedLimits(
        small_request_tokens=100, max_texts=1000, max_text_bytes=4000, timeout_s=timeout_s
    )
    return EmbeddingService(cast(Encoders, encoders), VectorCache(10_000), limits, threads=1)


@pytest.mark.parametrize(
    ("of_server_s", "of_request_s"), [(0, 0.05), (0.05, None), (0.05, 60), (60, 0.05)]
)
def test_request_past_its_deadline_fails_and_its_texts_are_dropped(
    of_server_s: float, of_request_s: float | None
) -> None:
    encoder = PatientEncoder(is_quick=False)
    asked = EmbedRequest("one", ["a"], timeout_s=of_request_s)
    started = time.monotonic()
    with pytest.raises(DeadlineError, match=r"within 0\.05 s"):
        asyncio.run(service(OneEncoder(encoder), timeout_s=of_server_s).embed(asked))
    assert time.monotonic() - started < 2
    [future], [timeout_s] = encoder.futures, encoder.timeouts
    assert future.cancelled()
    assert timeout_s is not None
    assert 0 < timeout_s <= 0.05


def test_deadline_is_kept_while_a_model_loads() -> None:
    loading = threading.Event()
    slow = service(OneEncoder(PatientEncoder(), loading=loading))
    with pytest.raises(DeadlineError):
        asyncio.run(slow.embed(EmbedRequest("one", ["a"], timeout_s=0.05)))
    loading.set()
    slow.close()


def test_full_queue_is_no_deadline() -> None:
    encoder = PatientEncoder()
    encoder.error = OverloadedError("server busy", retry_after_s=3)
    with pytest.raises(OverloadedError, match="server busy"):
        asyncio.run(service(OneEncoder(encoder), timeout_s=60).embed(EmbedRequest("one", ["a"])))


def test_without_a_limit_nothing_is_given_up() -> None:
    encoder = PatientEncoder()
    asyncio.run(service(OneEncoder(encoder)).embed(EmbedRequest("one", ["a"])))
    assert encoder.timeouts == [None]


def test_keep_alive_is_handed_on_after_the_request_also_a_failed_one() -> None:
    encoder = PatientEncoder()
    encoders = OneEncoder(encoder)
    embedding = service(encoders)
    asyncio.run(embedding.embed(EmbedRequest("one", ["a"])))
    assert encoders.kept == []
    asyncio.run(embedding.embed(EmbedRequest("one", ["a"], keep_alive_s=-1)))
    encoder.error = OverloadedError("server busy")
    with pytest.raises(OverloadedError):
        asyncio.run(embedding.embed(EmbedRequest("one", ["bb"], keep_alive_s=0)))
    assert encoders.kept == [-1, 0]
    assert encoder.touches == 3, "what the cache answers is use too"


@pytest.mark.parametrize("text", ["a" * 4001, "ä" * 2001, "\U0001f600" * 1001])
def test_text_that_is_too_large_is_named(text: str) -> None:
    embedding = service(OneEncoder(PatientEncoder()))
    # Texts that are tokenized at once are never too large: no smaller limit would make sense.
    texts = ["b" * ON_LOOP_CHARS, "c", text]
    with pytest.raises(TooLargeError, match=r"Text 2 has more than 4000 bytes.*MAX_TEXT_BYTES"):
        asyncio.run(embedding.embed(EmbedRequest("one", texts)))
    asyncio.run(embedding.embed(EmbedRequest("one", [*texts[:2], text[: len(text) - 1]])))


def test_long_requests_are_tokenized_in_turns_beside_the_event_loop() -> None:
    encoder = PatientEncoder()
    texts = ["d" * 3900] * 60
    result = asyncio.run(service(OneEncoder(encoder)).embed(EmbedRequest("one", texts)))
    assert len(result.vectors) == 60
    assert sum(count for _, count in encoder.tokenized) == 60
    assert all(count * 3900 <= TURN_CHARS for _, count in encoder.tokenized)
    assert all(thread.startswith("tokenize") for thread, _ in encoder.tokenized)
    encoder.tokenized.clear()
    asyncio.run(service(OneEncoder(encoder)).embed(EmbedRequest("one", ["short"])))
    assert encoder.tokenized == [(threading.main_thread().name, 1)]


def test_many_tiny_texts_are_tokenized_beside_the_event_loop() -> None:
    encoder = PatientEncoder()
    asyncio.run(service(OneEncoder(encoder)).embed(EmbedRequest("one", [""] * 1000)))
    [(thread, count)] = encoder.tokenized
    assert thread.startswith("tokenize")
    assert count == 1000
