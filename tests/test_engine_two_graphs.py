"""One text on all cores: the same bits, or not at all."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedserve.engine.backend import BACKENDS, BackendOptions, describe
from embedserve.engine.two_graphs import TwoGraphs
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
    """Adds up in another order where texts are longer than five tokens."""

    def run(self, texts: Sequence[TokenIds], *, is_alone: bool = False) -> Vectors:
        rows = super().run(texts)
        return np.nextafter(rows, np.float32(np.inf)) if len(texts[0]) > 5 else rows


def test_more_threads_are_left_out_where_they_would_change_a_vector(
    caplog: pytest.LogCaptureFixture,
) -> None:
    usual, wide = SumBackend(), OtherBits()
    graphs = TwoGraphs(usual, wide)
    with caplog.at_level(logging.WARNING):
        rows = [graphs.run([text(length)], is_alone=True) for length in (5, 6) for _ in range(3)]
    assert [row.tolist() for row in rows] == [[[n, n]] for n in (5, 5, 5, 6, 6, 6)]
    lengths = [[len(ids) for [ids] in one.batches] for one in (usual, wide)]
    assert lengths == [[5, 6, 6, 6], [5, 5, 5, 6]], "each is tried once"
    [record] = caplog.records
    assert "texts of 6 tokens stay with one thread" in record.message


def test_several_texts_and_texts_beside_others_take_one_thread() -> None:
    usual, wide = SumBackend(), SumBackend()
    graphs = TwoGraphs(usual, wide)
    graphs.run([text(3), text(3)], is_alone=True)
    graphs.run([text(3)])
    assert (len(usual.batches), len(wide.batches)) == (2, 0)
