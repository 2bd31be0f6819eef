"""One relevance from all evidence: the weights that are shipped, and what they promise."""

from itertools import pairwise

import numpy as np
import pytest

from embedserve.ranking.calibration import calibration_of, overlap
from scripts.relevance_report.fit import fit, reliability

STEPS = [n / 20 for n in range(-20, 21)]


@pytest.mark.parametrize("model", ["all-minilm", "all-minilm:latest"])
@pytest.mark.parametrize("shared", [0.0, 0.5, 1.0])
def test_relevance_rises_with_the_cosine(model: str, shared: float) -> None:
    fitted = calibration_of(model)
    assert fitted
    found = [fitted.relevance(cosine, shared) for cosine in STEPS]
    assert all(low < high for low, high in pairwise(found))
    assert 0 < found[0] < 0.05
    assert 0.45 < found[-1] < 1


def test_relevance_rises_with_the_words_that_are_shared() -> None:
    fitted = calibration_of("all-minilm")
    assert fitted
    assert fitted.relevance(0.4, 0.0) < fitted.relevance(0.4, 0.5) < fitted.relevance(0.4, 1.0)


def test_relevance_of_extremes_is_a_number() -> None:
    fitted = calibration_of("all-minilm")
    assert fitted
    assert 0 <= fitted.relevance(-1e6, 0.0) < fitted.relevance(1e6, 1.0) <= 1


def test_a_model_that_nothing_was_fitted_for_has_none() -> None:
    assert calibration_of("nomic-embed-text") is None


def test_overlap_is_the_share_of_words_known_by_their_beginnings() -> None:
    assert overlap(["Installing", "servers"], "How to install a SERVER.") == 1.0
    assert overlap(["install", "ports"], "How to install a server.") == 0.5
    assert overlap([], "anything") == 0.0
    assert overlap(["x"], "") == 0.0


def test_weights_are_found_again_from_what_they_drew() -> None:
    random = np.random.default_rng(1)
    features = np.column_stack([random.uniform(0, 1, 20_000), random.uniform(0, 3, 20_000)])
    chances = 1 / (1 + np.exp(4 - 6 * features[:, 0] - 0.5 * features[:, 1]))
    noise = random.uniform(0, 1, 20_000)
    answers = (random.uniform(0, 1, 20_000) < chances).astype(float)
    rows = np.column_stack([features, noise, answers])
    found = fit([rows], ("cosine", "bm25"))
    assert found.intercept == pytest.approx(-4, abs=0.3)
    assert found.weights == {
        "cosine": pytest.approx(6, abs=0.4),
        "bm25": pytest.approx(0.5, abs=0.1),
    }
    for one in reliability(found, [rows]):
        assert one.answered == pytest.approx(one.expected, abs=0.06)


def test_what_would_count_against_a_hit_is_left_out() -> None:
    rows = np.array([[0.9, 1.0, 0.0, 1.0], [0.8, 2.0, 0.0, 1.0], [0.2, 3.0, 0.0, 0.0]] * 5)
    assert list(fit([rows], ("cosine", "bm25")).weights) == ["cosine"]
