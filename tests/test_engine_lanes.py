"""Which texts run next, and how many at once."""

import time

import numpy as np

from embedserve.engine.backend import Backend
from embedserve.engine.lanes import QUIET_S, Lanes, shape_of
from embedserve.engine.requests import EmbedRequest, Entry, run_tokens
from embedserve.types import BatchTokens, Lane
from tests.sum_backend import DIMENSIONS, SumBackend, text

BACKEND = SumBackend()
TOKENS = 16


def fill(
    lanes: Lanes, lane: Lane, count: int, *, queued_s: float, backend: Backend = BACKEND
) -> None:
    rows = np.empty((count, DIMENSIONS), np.float32)
    request = EmbedRequest(backend, rows, lane, deadline_s=None)
    for row in range(count):
        lanes.add(Entry(row, request, row, text(TOKENS), TOKENS, queued_s))


def drain(lanes: Lanes) -> list[int]:
    sizes = []
    while lanes:
        sizes.append(len(lanes.take()))
    return sizes


def test_bulk_runs_in_large_batches_that_get_smaller_towards_the_end() -> None:
    lanes = Lanes(BatchTokens(usual=2 * TOKENS, bulk=8 * TOKENS), workers=2)
    fill(lanes, "bulk", 64, queued_s=time.monotonic())
    # A quarter of what waits for two workers, at most 8 texts and at least 2, in powers of two.
    assert drain(lanes) == [8, 8, 8, 8, 8, 4, 4, 4, 2, 2, 2, 2, 2, 2]


def test_bulk_runs_in_usual_batches_while_small_requests_come() -> None:
    lanes = Lanes(BatchTokens(usual=2 * TOKENS, bulk=8 * TOKENS), workers=1)
    now = time.monotonic()
    fill(lanes, "small", 1, queued_s=now)
    fill(lanes, "bulk", 6, queued_s=now)
    assert drain(lanes) == [1, 2, 2, 2]


def test_bulk_batches_grow_again_when_it_is_quiet() -> None:
    lanes = Lanes(BatchTokens(usual=2 * TOKENS, bulk=8 * TOKENS), workers=1)
    fill(lanes, "small", 1, queued_s=time.monotonic() - QUIET_S)
    assert drain(lanes) == [1]
    fill(lanes, "bulk", 16, queued_s=time.monotonic())
    assert drain(lanes)[0] == 8


def test_a_bulk_batch_is_never_smaller_than_a_usual_one() -> None:
    lanes = Lanes(BatchTokens(usual=4 * TOKENS, bulk=TOKENS), workers=1)
    fill(lanes, "bulk", 8, queued_s=time.monotonic())
    assert drain(lanes) == [4, 4]


def test_what_is_more_than_a_power_of_two_is_left_for_the_next_worker() -> None:
    lanes = Lanes(BatchTokens(usual=16 * TOKENS, bulk=16 * TOKENS), workers=1)
    fill(lanes, "small", 7, queued_s=time.monotonic())
    assert drain(lanes) == [4, 2, 1]


def test_small_runs_keep_the_number_of_the_run_before_from_four_texts_on() -> None:
    lanes = Lanes(BatchTokens(usual=16 * TOKENS, bulk=16 * TOKENS), workers=1)
    fill(lanes, "small", 5, queued_s=time.monotonic())
    four, one = lanes.take(), lanes.take()
    assert (len(four), len(one)) == (4, 1)
    fill(lanes, "small", 20, queued_s=time.monotonic())
    assert len(lanes.take(shape_of(four))) == 4
    assert len(lanes.take(shape_of(one))) == 16, "one text at a time is too slow to go on with"


def test_runs_of_a_fixed_number_of_texts_are_filled() -> None:
    """They cost the same when they are half empty: neither powers of two nor the last run count."""
    lanes = Lanes(BatchTokens(usual=2 * TOKENS, bulk=4 * TOKENS), workers=2)
    backend = SumBackend(fixed_texts=6)
    now = time.monotonic()
    fill(lanes, "small", 4, queued_s=now, backend=backend)
    four = lanes.take()
    assert (len(four), run_tokens(four)) == (4, 6 * TOKENS)
    fill(lanes, "small", 9, queued_s=now, backend=backend)
    assert [len(lanes.take(shape_of(four))) for _ in range(2)] == [6, 3]
    fill(lanes, "bulk", 14, queued_s=now, backend=backend)
    assert drain(lanes) == [6, 6, 2]


def test_a_lane_takes_longer_while_anything_waits_in_the_other() -> None:
    lanes = Lanes(BatchTokens(usual=2 * TOKENS, bulk=8 * TOKENS), workers=1)
    fill(lanes, "bulk", 1, queued_s=time.monotonic())
    assert (lanes.slowdown("small"), lanes.slowdown("bulk")) == (1.25, 1)
    fill(lanes, "small", 1, queued_s=time.monotonic())
    assert (lanes.slowdown("small"), lanes.slowdown("bulk")) == (1.25, 5)
    drain(lanes)
    assert (lanes.slowdown("small"), lanes.slowdown("bulk")) == (1, 1)
