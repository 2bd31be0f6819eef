"""Fusion of ranked lists."""

from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from embedserve.ranking.fusion import (
    FusedHit,
    Leg,
    Standing,
    dense_weight,
    fuse_by_sureness,
    fuse_ranks,
    fuse_scores,
)
from tests.fakes import scored


def leg(name: str, scores: dict[int, float], weight: float = 1.0) -> Leg:
    return Leg(name, scored(scores), weight)


def ids(hits: Sequence[FusedHit]) -> list[int]:
    return [hit.id for hit in hits]


DENSE = leg("dense", {1: 0.9, 2: 0.8, 3: 0.2})
LEXICAL = leg("lexical", {3: 12.0, 2: 8.0, 4: 3.0})


def test_ranks_are_fused_by_their_reciprocals() -> None:
    found = fuse_ranks([DENSE, LEXICAL], constant=10)
    assert ids(found) == [3, 2, 1, 4]
    scores = [1 / 13 + 1 / 11, 2 / 12, 1 / 11, 1 / 13]
    assert [hit.score for hit in found] == pytest.approx(scores)
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
        assert not fuse([])
        assert not fuse([leg("dense", {})])
    assert fuse_scores([DENSE, leg("lexical", {})])[0].score == 1.0


def test_equal_scores_are_ordered_by_id() -> None:
    one = leg("a", {5: 1.0, 3: 1.0, 4: 1.0})
    assert ids(fuse_ranks([one])) == [3, 4, 5]
    assert ids(fuse_scores([one])) == [3, 4, 5]
    assert ids(fuse_scores([one], scaling="z-score")) == [3, 4, 5]


def flat(name: str, best: float, rest: float, count: int = 10) -> Leg:
    """Make a leg of one hit above others that are alike."""
    return leg(name, {0: best, **dict.fromkeys(range(1, count), rest)})


def test_the_leg_whose_best_hit_stands_out_weighs_more() -> None:
    sure, unsure = flat("dense", 0.8, 0.3), flat("dense", 0.5, 0.48)
    rare, common = flat("lexical", 12, 2), flat("lexical", 12, 11)
    assert dense_weight(sure, common) > dense_weight(sure, rare) > dense_weight(unsure, rare)
    assert dense_weight(sure, common) > 0.9
    assert dense_weight(unsure, rare) < 0.35
    # A term that few chunks have is as rare as can be, whatever the others of them score.
    assert dense_weight(unsure, flat("lexical", 12, 11, count=3)) < dense_weight(unsure, rare)
    weighted = [
        leg("dense", {1: 0.9, 2: 0.8, 3: 0.2}, dense_weight(DENSE, LEXICAL)),
        leg("lexical", {3: 12.0, 2: 8.0, 4: 3.0}, 1 - dense_weight(DENSE, LEXICAL)),
    ]
    assert [*fuse_by_sureness(DENSE, LEXICAL)] == [*fuse_scores(weighted)]


def test_sureness_of_nothing_is_a_number() -> None:
    nothing = leg("x", {})
    assert not fuse_by_sureness(nothing, nothing)
    assert ids(fuse_by_sureness(DENSE, nothing)) == [1, 2, 3]
    assert ids(fuse_by_sureness(nothing, LEXICAL)) == [3, 2, 4]
    assert 0 < dense_weight(leg("dense", {1: -0.1, 2: -0.9}), flat("lexical", 1e-6, 0)) < 1


SCORES = st.dictionaries(st.integers(0, 9), st.sampled_from([-1.0, 0.0, 0.1, 0.5, 7.0]))


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES)
def test_order_of_the_input_does_not_matter(one: dict[int, float], other: dict[int, float]) -> None:
    def turned(scores: dict[int, float]) -> dict[int, float]:
        return dict(reversed(scores.items()))

    for fuse in (fuse_ranks, fuse_scores):
        found = fuse([leg("a", one), leg("b", other)])
        assert [*found] == [*fuse([leg("a", turned(one)), leg("b", turned(other))])]
        assert {hit.id for hit in found} == {*one, *other}
        assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
