"""One text on all cores: the same bits, or not at all."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedserve.engine.backend import BACKENDS, BackendOptions, describe
from embedserve.engine.two_graphs import SAMPLES, TwoGraphs
from embedserve.types import TokenIds, Vectors
from tests.sum_backend import SumBackend, text
from tests.tiny_graph import MAX_TOKENS, PAD, random_text, write_tiny_graph

OPTIONS = BackendOptions(
    "cpu", threads=2, arithmetic="f32", pad_token_id=PAD, max_tokens=MAX_TOKENS
)


@pytest.mark.parametrize("engine", BACKENDS.names())
def test_text_of_any_length_has_the_same_bits_alone_and_among_others(
    engine: str, tmp_path: Path
) -> None:
    if why_not := describe(engine).why_not:
        pytest.skip(f"{engine.upper()} NOT CHECKED: {why_not}")
    path = write_tiny_graph(tmp_path / "tiny.onnx")
    usual = BACKENDS.load(engine).load(path, OPTIONS)
    wide = BACKENDS.load(engine).load(path, replace(OPTIONS, threads=1, run_threads=2))
    graphs = TwoGraphs(usual, wide)
    for length in range(1, MAX_TOKENS + 1):
        texts = [random_text(length, seed) for seed in range(3)]
        alone = [graphs.run([ids], is_alone=True) for ids in texts]
        assert np.concatenate(alone).tobytes() == graphs.run(texts).tobytes(), length
    graphs.close()


class OtherBits(SumBackend):
    """Adds up in another order where a text is longer than five tokens and begins with a 7."""

    def run(self, texts: Sequence[TokenIds], *, is_alone: bool = False) -> Vectors:
        rows = super().run(texts)
        is_other = len(texts[0]) > 5 and texts[0][0] == 7
        return np.nextafter(rows, np.float32(np.inf)) if is_other else rows


def test_more_threads_are_left_out_for_good_where_they_change_a_vector(
    caplog: pytest.LogCaptureFixture,
) -> None:
    usual, wide = SumBackend(), OtherBits()
    graphs = TwoGraphs(usual, wide)
    rows = [graphs.run([text(5)], is_alone=True) for _ in range(2)]
    assert len(wide.batches) == SAMPLES + 2, "compared on several, and then in use"
    with caplog.at_level(logging.WARNING):
        rows += [graphs.run([text(6, 7)], is_alone=True) for _ in range(2)]
    calls = len(wide.batches)
    rows.append(graphs.run([text(5)], is_alone=True))
    assert [row[0, 0] for row in rows] == [5, 5, 42, 42, 5]
    assert calls == len(wide.batches) == SAMPLES + 3, "one difference ends it in every bucket"
    [record] = caplog.records
    assert "a text of 6 tokens has another vector" in record.message


class PickyBackend(SumBackend):
    """Adds up in another order unless all of a text's tokens are the same."""

    def run(self, texts: Sequence[TokenIds], *, is_alone: bool = False) -> Vectors:
        rows = super().run(texts)
        return rows if np.ptp(texts[0]) == 0 else np.nextafter(rows, np.float32(np.inf))


def test_difference_that_the_first_text_does_not_show_is_found() -> None:
    usual, wide = SumBackend(), PickyBackend()
    graphs = TwoGraphs(usual, wide)
    for value in (3, 4):
        assert graphs.run([text(8, value)], is_alone=True)[0, 0] == 8 * value
    assert [ids[0] for [ids] in wide.batches] == [3, 3], "the text itself, and one sample"


def test_several_texts_and_texts_beside_others_take_one_thread() -> None:
    usual, wide = SumBackend(), SumBackend()
    graphs = TwoGraphs(usual, wide)
    graphs.run([text(3), text(3)], is_alone=True)
    graphs.run([text(3)])
    assert (len(usual.batches), len(wide.batches)) == (2, 0)
