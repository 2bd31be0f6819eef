"""Metrics of rankings, against trec_eval's own code, and of spans."""

import hypothesis.strategies as st
import pytest
import pytrec_eval
from hypothesis import given, settings

from embedserve.ranking.metrics import (
    DocumentSpan,
    SpanQuality,
    ndcg,
    recall,
    reciprocal_rank,
    span_quality,
)

IDS = [f"d{n}" for n in range(15)]
RANKINGS = st.lists(st.sampled_from(IDS), unique=True, min_size=1)
GAINS = st.dictionaries(st.sampled_from(IDS), st.integers(0, 3), min_size=1)


@settings(max_examples=200, deadline=None)
@given(RANKINGS, GAINS)
def test_metrics_are_those_of_trec_eval(ranking: list[str], gains: dict[str, int]) -> None:
    measures = {"ndcg_cut.10", "recall.5,10", "recip_rank"}
    evaluator = pytrec_eval.RelevanceEvaluator({"q": gains}, measures)
    run = {"q": {one: -float(rank) for rank, one in enumerate(ranking)}}
    expected = evaluator.evaluate(run)["q"]
    relevant = {one for one, gain in gains.items() if gain > 0}
    assert ndcg(ranking, gains, cut=10) == pytest.approx(expected["ndcg_cut_10"])
    for cut in (5, 10):
        assert recall(ranking, relevant, cut=cut) == pytest.approx(expected[f"recall_{cut}"])
    found = reciprocal_rank(ranking, relevant, cut=len(ranking))
    assert found == pytest.approx(expected["recip_rank"])


def test_reciprocal_rank_ends_at_the_cut() -> None:
    assert reciprocal_rank(IDS, {"d9"}) == 0.1
    assert reciprocal_rank(IDS, {"d10"}) == 0.0
    assert reciprocal_rank(IDS, {"d9", "d1"}, cut=2) == 0.5


def test_what_was_ranked_twice_counts_once_in_recall() -> None:
    assert recall(["a", "a", "b"], {"a", "b"}, cut=2) == 0.5
    assert recall(["a"], set(), cut=2) == 0.0
    assert ndcg(["a"], {"a": 0}) == 0.0


def test_spans_are_compared_by_characters() -> None:
    answers = [DocumentSpan("a", 10, 20), DocumentSpan("a", 40, 50)]
    found = [DocumentSpan("a", 0, 15), DocumentSpan("a", 10, 30), DocumentSpan("b", 40, 50)]
    assert span_quality(found, answers) == SpanQuality(10 / 20, 10 / 40, 10 / 50)
    assert span_quality(answers, answers) == SpanQuality(1.0, 1.0, 1.0)
    assert span_quality([], answers) == SpanQuality(0.0, 0.0, 0.0)
    assert span_quality(found, []) == SpanQuality(0.0, 0.0, 0.0)
    # Beside each other, and one within the other.
    whole = [DocumentSpan("a", 40, 45), DocumentSpan("a", 45, 50), DocumentSpan("a", 41, 43)]
    assert span_quality(whole, answers) == SpanQuality(0.5, 1.0, 0.5)


SPANS = st.lists(
    st.builds(
        lambda document, start, size: DocumentSpan(document, start, start + size),
        st.sampled_from("ab"),
        st.integers(0, 30),
        st.integers(0, 12),
    ),
    max_size=6,
)


@settings(max_examples=100, deadline=None)
@given(SPANS, SPANS)
def test_span_quality_counts_each_character_once(
    found: list[DocumentSpan], answers: list[DocumentSpan]
) -> None:
    got, wanted = (
        {(span.document, place) for span in spans for place in range(span.start, span.end)}
        for spans in (found, answers)
    )
    quality = span_quality(found, answers)
    assert quality.recall == (len(got & wanted) / len(wanted) if wanted else 0.0)
    assert quality.precision == (len(got & wanted) / len(got) if got else 0.0)
    assert quality.iou == (len(got & wanted) / len(got | wanted) if got | wanted else 0.0)
