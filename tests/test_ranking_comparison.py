"""Differences between settings, and whether chance explains them."""

from itertools import product

import numpy as np
import pytest

from embedserve.ranking.comparison import compare, interval


def test_a_clear_difference_is_told_apart_and_a_small_one_is_not() -> None:
    random = np.random.default_rng(3)
    base = random.uniform(0.2, 0.8, 60)
    noise = random.normal(0, 0.05, 60)
    clear = compare((base + 0.1 + noise).tolist(), base.tolist())
    assert clear.difference == pytest.approx(0.1 + noise.mean())
    assert clear.low < clear.difference < clear.high
    assert clear.is_told_apart
    assert clear.low > 0
    chance = compare((base + noise - noise.mean() + 0.001).tolist(), base.tolist())
    assert not chance.is_told_apart
    assert chance.low < 0 < chance.high


def test_p_is_that_of_an_exact_test() -> None:
    one = [0.9, 0.4, 0.8, 0.7, 0.5, 0.9, 0.3, 0.6]
    other = [0.5, 0.5, 0.6, 0.2, 0.4, 0.7, 0.35, 0.5]
    differences = np.array(one) - np.array(other)
    sums = np.array(list(product((-1, 1), repeat=len(one)))) @ differences
    exact = np.mean(abs(sums) >= abs(differences.sum()) - 1e-9)
    found = compare(one, other)
    # 10,000 draws: three standard errors of a share near .05 are .0065.
    assert found.p == pytest.approx(exact, abs=0.0065)
    assert (found.queries, found.better, found.worse) == (8, 6, 2)
    assert compare(one, other) == found


def test_equal_settings_have_p_one_and_unequal_lists_are_refused() -> None:
    same = compare([0.5, 1.0, 0.0], [0.5, 1.0, 0.0])
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    for values, baseline in (([1.0], [1.0, 0.0]), ([], [])):
        with pytest.raises(ValueError, match=r"shorter|longer|nothing"):
            compare(values, baseline)


def test_the_interval_of_a_mean_narrows_with_more_queries() -> None:
    few, many = interval([0.0, 1.0] * 10), interval([0.0, 1.0] * 500)
    assert few[0] < many[0] < 0.5 < many[1] < few[1]
    # The normal approximation of 1,000 coins: .5 +- 1.96 * .0158.
    assert many == pytest.approx((0.469, 0.531), abs=0.004)
