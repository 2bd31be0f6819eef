"""How an artefact is compared with fp32: the texts, the card, the gate."""

from dataclasses import replace

import numpy as np
import pytest

from embedserve.models import fidelity
from embedserve.models.fidelity import FidelityCard
from embedserve.types import Vectors


def test_reference_texts_are_distinct_and_two_fill_models_of_512_tokens() -> None:
    texts = fidelity.reference_texts()
    assert len(set(texts)) == len(texts) == 239
    # English has less than one word to a token.
    assert [len(text.split()) >= 480 for text in texts] == [False] * 237 + [True, True]


def test_pairs_are_questions_and_passages() -> None:
    queries, passages = fidelity.reference_pairs()
    assert (len(queries), len(passages)) == (36, 24)
    assert max(map(len, queries)) < 70 < 180 < min(map(len, passages))
    assert queries[0] == "how long should sourdough proof in the fridge"


def test_card_compares_texts_in_order() -> None:
    true = np.eye(12, dtype=np.float32)
    ours = true.copy()
    ours[0] = (true[0] + true[1]) / np.sqrt(np.float32(2))
    card = fidelity.compare(true, ours)
    assert card.texts == 12
    assert card.cosine_min == pytest.approx(0.5**0.5)
    assert card.cosine_mean == pytest.approx((11 + 0.5**0.5) / 12)
    same = fidelity.compare(true, true)
    assert (same.top1_agreement, same.top10_overlap, same.cosine_min) == (1, 1, 1)


def test_card_counts_neighbours() -> None:
    generator = np.random.default_rng(1)
    drawn = generator.standard_normal((60, 8)).astype(np.float32)
    true = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    near = [set(np.argsort(-np.delete(true @ row, place))[:10]) for place, row in enumerate(true)]
    other = true[:, ::-1].copy()
    other[:, 0] *= -1  # another space: other neighbours
    others = [set(np.argsort(-np.delete(other @ r, place))[:10]) for place, r in enumerate(other)]
    wanted = np.mean([len(a & b) / 10 for a, b in zip(near, others, strict=True)])
    assert fidelity.compare(true, other).top10_overlap == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("change", "figure"),
    [
        ({"cosine_mean": 0.9984}, "mean cosine"),
        ({"cosine_min": 0.9949}, "lowest cosine"),
        ({"cosine_min": float("nan")}, "lowest cosine"),
        ({"top10_overlap": 0.9649}, "top-10 overlap"),
    ],
)
def test_gate_names_the_figure_that_failed(change: dict[str, float], figure: str) -> None:
    good = FidelityCard(0.9985, 0.995, 0.5, 0.965, 100)
    assert fidelity.failed_figures(good, "int8") == []
    [failed] = fidelity.failed_figures(replace(good, **change), "int8")  # type: ignore[arg-type]
    assert failed.startswith(f"{figure} against fp32 is")


def judged(seed: int) -> Vectors:
    """Return scores of 12 queries over 24 passages: two relevant each, all others much alike."""
    scores = np.random.default_rng(seed).normal(-10, 0.05, (12, 24)).astype(np.float32)
    for query in range(12):
        scores[query, 2 * query : 2 * query + 2] = (8, 4)
    return scores


def test_order_among_passages_of_no_relevance_does_not_count() -> None:
    true = judged(1)
    # Another draw of what is irrelevant: its order is another, by chance.
    card = fidelity.compare_kind("reranker", true, judged(2))
    assert (card.top1_agreement, card.top10_overlap, card.texts) == (1, 1, 12)
    assert 0.99 < card.cosine_min <= card.cosine_mean < 1
    assert fidelity.compare_kind("reranker", true, true).cosine_min >= 0.999999


def test_relevant_passages_in_wrong_places_do_count() -> None:
    true, ours = judged(1), judged(1)
    ours[0, :2] = (4, 8)
    assert fidelity.compare_kind("reranker", true, ours).top1_agreement == pytest.approx(11 / 12)
    assert fidelity.compare_kind("reranker", true, -true).top1_agreement == 0
    graded = np.tile(np.linspace(-10, 10, 24, dtype=np.float32), (12, 1))
    upside = fidelity.compare_kind("reranker", graded, -graded)
    assert upside.top10_overlap == 0
    assert upside.cosine_min == pytest.approx(-1)
