"""Fusion of ranked lists."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from embedserve.ranking.fusion import FusedHit, Leg, Standing, fuse_ranks, fuse_scores
from embedserve.types import ScoredId


def leg(name: str, scores: dict[int, float], weight: float = 1.0) -> Leg:
    return Leg(name, [ScoredId(id, score) for id, score in scores.items()], weight)


def ids(hits: list[FusedHit]) -> list[int]:
    return [hit.id for hit in hits]


DENSE = leg("dense", {1: 0.9, 2: 0.8, 3: 0.2})
LEXICAL = leg("lexical", {3: 12.0, 2: 8.0, 4: 3.0})


def test_ranks_are_fused_by_their_reciprocals() -> None:
    found = fuse_ranks([DENSE, LEXICAL], constant=10)
    assert [(hit.id, hit.score) for hit in found] == [
        (3, pytest.approx(1 / 13 + 1 / 11)),
        (2, pytest.approx(2 / 12)),
        (1, pytest.approx(1 / 11)),
        (4, pytest.approx(1 / 13)),
    ]
    assert found[0].legs == {"dense": Standing(3, 0.2), "lexical": Standing(1, 12.0)}
    assert found[2].legs == {"dense": Standing(1, 0.9)}


def test_scores_are_scaled_for_each_leg_and_weighted() -> None:
    dense, lexical = leg("dense", {1: 0.9, 2: 0.8, 3: 0.2}, 3), leg("l", {3: 12.0, 2: 7.5, 4: 3.0})
    found = fuse_scores([dense, lexical])
    assert {hit.id: hit.score for hit in found} == {
        1: pytest.approx(0.75),
        2: pytest.approx(0.75 * 6 / 7 + 0.25 * 0.5),
        3: pytest.approx(0.25),
        4: pytest.approx(0.0),
    }
    assert ids(found) == [2, 1, 3, 4]
    assert ids(fuse_scores([dense, lexical], scaling="z-score"))[-1] == 4


def test_a_leg_that_found_nothing_changes_nothing() -> None:
    for fuse in (fuse_ranks, fuse_scores):
        assert ids(fuse([DENSE, leg("lexical", {})])) == [1, 2, 3]
        assert fuse([]) == fuse([leg("dense", {})]) == []
    assert fuse_scores([DENSE, leg("lexical", {})])[0].score == 1.0


def test_equal_scores_are_ordered_by_id() -> None:
    one = leg("a", {5: 1.0, 3: 1.0, 4: 1.0})
    assert ids(fuse_ranks([one])) == [3, 4, 5]
    assert ids(fuse_scores([one])) == [3, 4, 5]
    assert ids(fuse_scores([one], scaling="z-score")) == [3, 4, 5]


SCORES = st.dictionaries(st.integers(0, 9), st.sampled_from([-1.0, 0.0, 0.1, 0.5, 7.0]))


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES)
def test_order_of_the_input_does_not_matter(one: dict[int, float], other: dict[int, float]) -> None:
    def turned(scores: dict[int, float]) -> dict[int, float]:
        return dict(reversed(scores.items()))

    for fuse in (fuse_ranks, fuse_scores):
        found = fuse([leg("a", one), leg("b", other)])
        assert found == fuse([leg("a", turned(one)), leg("b", turned(other))])
        assert {hit.id for hit in found} == {*one, *other}
        assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
