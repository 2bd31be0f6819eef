"""Vectors cut to fewer dimensions, and what is said of it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedserve.services.shorter import cut, warnings_of
from embedserve.types import EncoderSpec, Vectors


def spec(**changes: object) -> EncoderSpec:
    plain = EncoderSpec("a", Path("a"), Path("b"), max_tokens=8, dimensions=8)
    return replace(plain, **changes)  # type: ignore[arg-type]


def unit_rows() -> Vectors:
    rows = np.random.default_rng(1).normal(0.5, 1, (5, 8)).astype(np.float32)
    unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def test_shorter_vectors_are_the_leading_dimensions_of_unit_length() -> None:
    rows = unit_rows()
    short = cut(rows, 3, spec())
    assert np.allclose(short, rows[:, :3] / np.linalg.norm(rows[:, :3], axis=1, keepdims=True))
    for all_of_them in (None, 0, -1, 8, 100):
        assert cut(rows, all_of_them, spec()) is rows


def test_vectors_are_standardized_before_the_cut_where_the_card_says_so() -> None:
    rows = unit_rows()
    short = cut(rows, 3, spec(layer_norm_before_cut=True))
    standard = (rows - rows.mean(axis=1, keepdims=True)) / rows.std(axis=1, keepdims=True)
    expected = standard[:, :3] / np.linalg.norm(standard[:, :3], axis=1, keepdims=True)
    assert np.allclose(short, expected, atol=1e-6)
    assert not np.allclose(short, cut(rows, 3, spec()), atol=1e-2)


@pytest.mark.parametrize(
    ("dimensions", "is_warned"), [(None, False), (8, False), (9, False), (4, False), (3, True)]
)
def test_lengths_that_the_model_was_not_trained_for_are_said(
    dimensions: int | None, is_warned: bool
) -> None:
    found = warnings_of("m", dimensions, spec(matryoshka_dimensions=(4, 2)))
    assert bool(found) == is_warned
    if is_warned:
        assert "only for 8, 4, 2" in found[0]
