"""Chunks into passages, and into a budget of tokens."""

import hypothesis.strategies as st
from hypothesis import given, settings

from embedserve.ranking.passages import (
    Passage,
    PlacedChunk,
    RankedChunk,
    fill_budget,
    merge_passages,
)


def placed(document: int, ordinal: int, tokens: int = 100) -> PlacedChunk:
    start = ordinal * 1000
    return PlacedChunk(document * 100 + ordinal, document, ordinal, start, start + 900, tokens)


def around(*chunks: PlacedChunk) -> dict[tuple[int, int], PlacedChunk]:
    return {(chunk.document_id, chunk.ordinal): chunk for chunk in chunks}


def ordinals(passage: Passage) -> list[int]:
    return [chunk.ordinal for chunk in passage.chunks]


DOCUMENT = [placed(1, ordinal) for ordinal in range(10)]


def test_neighbours_come_along_up_to_the_size_of_a_passage() -> None:
    ranked = [RankedChunk(DOCUMENT[4], 0.9), RankedChunk(placed(2, 0), 0.5)]
    found = merge_passages(ranked, around(*DOCUMENT, placed(2, 0)), count=5)
    assert [ordinals(passage) for passage in found] == [[4, 5, 6], [0]]
    assert [passage.tokens for passage in found] == [300, 100]
    assert found[0].score == 0.9


def test_a_passage_grows_towards_what_was_found() -> None:
    ranked = [RankedChunk(DOCUMENT[4], 0.9), RankedChunk(DOCUMENT[3], 0.8)]
    [passage] = merge_passages(ranked, around(*DOCUMENT), count=5)
    assert ordinals(passage) == [3, 4, 5]
    assert [one.chunk.ordinal for one in passage.found] == [4, 3]


def test_nothing_of_a_document_is_in_two_passages() -> None:
    ranked = [RankedChunk(DOCUMENT[ordinal], 1 - n / 10) for n, ordinal in enumerate((4, 7, 3, 5))]
    found = merge_passages(ranked[:2] + ranked[3:], around(*DOCUMENT), count=3)
    assert [ordinals(passage) for passage in found] == [[4, 5, 6], [7, 8, 9]]
    found = merge_passages(ranked[:3], around(*DOCUMENT), count=1)
    assert [ordinals(passage) for passage in found] == [[3, 4, 5]]
    ranked = [RankedChunk(DOCUMENT[ordinal], 1 - n / 10) for n, ordinal in enumerate((4, 7, 2))]
    found = merge_passages(ranked, around(*DOCUMENT), count=3)
    assert [ordinals(passage) for passage in found] == [[4, 5, 6], [7, 8, 9], [1, 2, 3]]


def test_a_chunk_larger_than_a_passage_stands_alone() -> None:
    large = placed(1, 1, 700)
    [passage] = merge_passages(
        [RankedChunk(large, 1.0)], around(placed(1, 0), large, placed(1, 2)), count=1
    )
    assert ordinals(passage) == [1]


def test_a_budget_takes_the_best_that_fits() -> None:
    ranked = [
        RankedChunk(placed(1, n, tokens), 1 - n / 10) for n, tokens in enumerate((60, 50, 40, 10))
    ]
    found = fill_budget(ranked, max_tokens=110)
    assert [one.chunk.tokens for one in found] == [60, 50]
    assert [one.chunk.tokens for one in fill_budget(ranked, max_tokens=109)] == [60, 40]
    assert fill_budget(ranked, max_tokens=5) == []


PLACES = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9)), unique=True, max_size=20)


@settings(max_examples=100, deadline=None)
@given(PLACES, st.integers(1, 5), st.integers(50, 400))
def test_passages_are_disjoint_connected_and_within_their_size(
    places: list[tuple[int, int]], count: int, max_tokens: int
) -> None:
    every = [placed(document, n, 40 + 20 * (n % 4)) for document in (1, 2, 3) for n in range(10)]
    chunks = around(*every)
    ranked = [RankedChunk(chunks[place], -float(n)) for n, place in enumerate(places)]
    found = merge_passages(ranked, chunks, count=count, max_tokens=max_tokens)
    ids = [chunk.id for passage in found for chunk in passage.chunks]
    assert len(ids) == len(set(ids))
    assert len(found) == count or {chunk.chunk.id for chunk in ranked} <= set(ids)
    for passage in found:
        assert passage.tokens <= max_tokens or len(passage.chunks) == 1
        first = passage.chunks[0].ordinal
        assert ordinals(passage) == list(range(first, first + len(passage.chunks)))
        assert {one.chunk.id for one in passage.found} <= {chunk.id for chunk in passage.chunks}
    assert [passage.score for passage in found] == sorted(
        (passage.score for passage in found), reverse=True
    )
