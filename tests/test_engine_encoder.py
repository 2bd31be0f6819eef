"""From texts to vectors on the engine that a model's spec names."""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from embedserve.engine.backend import describe
from embedserve.engine.encoder import SLICE, Encoder
from embedserve.engine.scheduler import Scheduler
from embedserve.errors import ModelError, OverloadedError, TextFailedError
from embedserve.types import BatchTokens, EncoderSpec, Vectors
from tests import sum_backend
from tests.tiny_graph import DIMENSIONS, MAX_TOKENS, PAD, WORDS, tiny_spec

WORD = [f"w{number}" for number in range(WORDS)]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> EncoderSpec:
    return tiny_spec(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler(workers=2, batch_tokens=BatchTokens(256, 256), queue_tokens=5_000)
    yield scheduler
    scheduler.close()


def text(words: int, seed: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORD[PAD + 1 :], words).tolist())


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_texts_of_all_lengths_in_one_call_have_the_vectors_that_each_has_alone(
    engine: str, spec: EncoderSpec, scheduler: Scheduler
) -> None:
    if not describe(engine).is_available:
        pytest.skip(f"ENGINE NOT CHECKED: {describe(engine).why_not}")
    encoder = Encoder(replace(spec, engine=engine), scheduler, device="cpu")
    texts = [text(1 + seed % (MAX_TOKENS + 20), seed) for seed in range(SLICE + 40)]
    together = encoder.encode(texts)
    alone = np.concatenate([encoder.encode([one], lane="small") for one in texts])
    assert together.tobytes() == alone.tobytes()
    encoder.close()


def test_both_engines_give_the_same_vectors(spec: EncoderSpec, scheduler: Scheduler) -> None:
    if not describe("openvino").is_available:
        pytest.skip(f"ENGINE NOT CHECKED: {describe('openvino').why_not}")
    texts = [text(words, words) for words in (1, 7, 8, 30, 66, 98)]
    rows = []
    for engine in ("onnxruntime", "openvino"):
        encoder = Encoder(replace(spec, engine=engine), scheduler, device="cpu")
        rows.append(encoder.encode(texts))
        encoder.close()
    # Both compute in float32 and differ by the order of sums.
    assert (rows[0] * rows[1]).sum(axis=1).min() >= 0.9999


def test_engine_that_is_not_known_here_is_named(spec: EncoderSpec, scheduler: Scheduler) -> None:
    with pytest.raises(ModelError, match="pulled for engine `abacus`, which is not installed"):
        Encoder(replace(spec, engine="abacus"), scheduler, device="cpu")


def test_arithmetic_of_the_spec_reaches_the_engine(spec: EncoderSpec, scheduler: Scheduler) -> None:
    with pytest.raises(ModelError, match="`bf16`"):
        Encoder(replace(spec, arithmetic="bf16"), scheduler, device="cpu")


def test_files_that_are_missing_are_said(
    spec: EncoderSpec, scheduler: Scheduler, tmp_path: Path
) -> None:
    for missing in (
        replace(spec, onnx_path=tmp_path / "absent.onnx"),
        replace(spec, tokenizer_path=tmp_path / "absent.json"),
    ):
        with pytest.raises(ModelError, match="absent"):
            Encoder(missing, scheduler, device="cpu")


def test_encoder_knows_when_it_is_used(spec: EncoderSpec, scheduler: Scheduler) -> None:
    encoder = Encoder(spec, scheduler, device="cpu")
    begun_s = encoder.used_s
    future = encoder.submit(encoder.tokenize([text(5, 1)] * 400), lane="bulk")
    assert encoder.is_busy
    future.result(10)
    assert not encoder.is_busy
    assert encoder.used_s > begun_s
    ended_s = encoder.used_s
    encoder.touch()
    assert encoder.used_s > ended_s
    encoder.close()


def test_time_limit_reaches_the_scheduler(spec: EncoderSpec) -> None:
    scheduler = sum_backend.scheduler()
    encoder = Encoder(spec, scheduler, device="cpu")
    late = encoder.submit(encoder.tokenize([text(5, 1)]), lane="small", timeout_s=-1)
    with pytest.raises(OverloadedError, match="time limit"):
        late.result(10)
    assert not encoder.is_busy
    scheduler.close()
    encoder.close()


class FailingScheduler:
    """Cannot run the fourth text of the second lot."""

    workers = 1

    def __init__(self) -> None:
        self.lots = 0

    def submit(self, backend: object, texts: list[object], **asked: object) -> "Future[Vectors]":
        self.lots += 1
        future: Future[Vectors] = Future()
        if self.lots == 2:
            future.set_exception(TextFailedError("broken", [3]))
        else:
            future.set_result(np.ones((len(texts), DIMENSIONS), np.float32))
        return future


def test_text_that_fails_is_named_by_its_place_among_all(spec: EncoderSpec) -> None:
    encoder = Encoder(spec, cast(Scheduler, FailingScheduler()), device="cpu")
    with pytest.raises(TextFailedError, match=f"Text {SLICE + 3} could not be embedded: broken"):
        encoder.encode(["w1"] * (SLICE + 5))
    encoder.close()
