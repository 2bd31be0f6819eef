"""Requests from their text to their vectors: deadlines, keep-alive, texts that are too large."""

import asyncio
import gc
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from embedserve.engine.cache import VectorCache
from embedserve.engine.requests import WhenFull
from embedserve.engine.tokenizer import TokenizedText
from embedserve.errors import (
    DeadlineError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    TooLargeError,
)
from embedserve.services.admission import forecast
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
        self.full: dict[Lane, float] = {}
        """Seconds until there is room, by lane."""
        self.when_full: list[WhenFull] = []
        self.places: list[tuple[Lane, int, int]] = []

    def excess_s(self, lane: Lane, tokens: int, *, coming: int) -> float:
        self.places.append((lane, tokens, coming))
        return self.full.get(lane, 0)

    def touch(self) -> None:
        self.touches += 1

    def tokenize(self, texts: list[str], *, max_tokens: int | None) -> list[TokenizedText]:
        self.tokenized.append((threading.current_thread().name, len(texts)))
        return [TokenizedText(np.array([len(text), 1]), is_truncated=False) for text in texts]

    def submit(
        self,
        texts: list[TokenizedText],
        *,
        lane: Lane,
        when_full: WhenFull,
        timeout_s: float | None,
    ) -> "Future[Vectors]":
        if self.error:
            raise self.error
        future: Future[Vectors] = Future()
        self.futures.append(future)
        self.timeouts.append(timeout_s)
        self.when_full.append(when_full)
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


class NoEncoder(OneEncoder):
    """Encoders of no model, which takes a while to find out."""

    def get(self, name: str, kind: ModelKind) -> PatientEncoder:
        super().get(name, kind)
        raise ModelNotFoundError(name)


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


def test_error_of_a_load_that_nobody_waits_for_any_more_is_not_logged() -> None:
    loading, logged = threading.Event(), list[object]()
    slow = service(NoEncoder(PatientEncoder(), loading=loading))

    async def leave_and_go_on() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, one: logged.append(one))
        with pytest.raises(DeadlineError):
            await slow.embed(EmbedRequest("one", ["a"], timeout_s=0.05))
        loading.set()
        # When another load has ended, the first has too.
        with pytest.raises(ModelNotFoundError):
            await slow.embed(EmbedRequest("two", ["a"]))
        gc.collect()

    asyncio.run(leave_and_go_on())
    slow.close()
    assert logged == []


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


@pytest.mark.parametrize("texts", [["word " * 200] * 60, ["word " * 110]])
def test_long_request_is_refused_before_it_is_tokenized(texts: list[str]) -> None:
    encoder = PatientEncoder()
    encoder.full = {"bulk": 7.2, "small": 2.5}
    with pytest.raises(OverloadedError, match="server busy, please try again") as refusal:
        asyncio.run(service(OneEncoder(encoder)).embed(EmbedRequest("one", texts)))
    assert refusal.value.retry_after_s == (8 if len(texts) == 60 else 3)
    assert encoder.tokenized == []


def test_short_request_is_tokenized_at_once_whatever_waits() -> None:
    encoder = PatientEncoder()
    encoder.full = {"bulk": 1, "small": 1}
    # The cache may know it, and to look costs less than to refuse.
    asyncio.run(service(OneEncoder(encoder)).embed(EmbedRequest("one", ["word " * 50])))
    assert len(encoder.futures) == 1


def test_prompt_counts_as_the_text_that_it_goes_in_front_of() -> None:
    encoder = PatientEncoder()
    prompted = replace(encoder.spec, query_prompt="q" * 300, max_tokens=1000)
    encoder.spec = prompted
    asked = EmbedRequest("one", ["a", "b"], input_type="query")
    asyncio.run(service(OneEncoder(encoder)).embed(asked))
    [(thread, _)] = encoder.tokenized
    assert thread.startswith("tokenize")
    assert {tokens for _, tokens, _ in encoder.places} == {2 * forecast(["q" * 301], 1000)}


def test_dimensions_that_must_fit_and_do_not_are_refused_before_anything_is_done() -> None:
    encoder = PatientEncoder()
    asked = EmbedRequest("one", ["a"], dimensions=3, is_exact_size=True)
    with pytest.raises(InvalidRequestError, match="This model gives 2"):
        asyncio.run(service(OneEncoder(encoder)).embed(asked))
    assert encoder.tokenized == []


def test_what_was_let_into_its_lane_is_not_refused_later() -> None:
    encoder = PatientEncoder()
    embedding = service(OneEncoder(encoder))
    asked = ["short"], ["word " * 200] * 60, ["word " * 10] * 11
    for texts in asked:
        asyncio.run(embedding.embed(EmbedRequest("one", texts)))
    # The last was let into the small lane's queue by a forecast that was right.
    assert encoder.when_full == ["refuse", "queue", "queue"]
    encoder.full = {"small": 1}
    asyncio.run(embedding.embed(EmbedRequest("one", [f"{text}!" for text in asked[2]])))
    assert encoder.when_full[3] == "refuse", "let in as bulk, and small after all"


def test_request_that_may_belong_to_either_lane_needs_room_in_one() -> None:
    encoder = PatientEncoder()
    texts = ["word " * 10] * 11  # about as many tokens as a small request has at most
    for full in ("bulk", "small"):
        encoder.full = {full: 1}
        asyncio.run(service(OneEncoder(encoder)).embed(EmbedRequest("one", texts)))
    encoder.full = {"bulk": 1, "small": 1}
    with pytest.raises(OverloadedError):
        asyncio.run(service(OneEncoder(encoder)).embed(EmbedRequest("one", texts)))


def test_what_waits_for_a_tokenizer_counts_until_it_is_tokenized() -> None:
    encoder = PatientEncoder()
    embedding = service(OneEncoder(encoder))

    async def ask() -> None:
        asked = [EmbedRequest("one", [f"{number} word " * 200] * 40) for number in range(3)]
        await asyncio.gather(*map(embedding.embed, asked))
        await embedding.embed(asked[0])

    asyncio.run(ask())
    tokens = 40 * encoder.spec.max_tokens
    assert [coming for _, _, coming in encoder.places] == [0, tokens, 2 * tokens, 0]
    assert all(lane == "bulk" and own == tokens for lane, own, _ in encoder.places)
