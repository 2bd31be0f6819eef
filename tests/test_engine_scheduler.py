"""The scheduler against small real backends: order, fairness, refusal, failure."""

import threading
import time

import pytest

from embedserve.errors import ModelError, OverloadedError
from tests.sum_backend import DIMENSIONS, LONGEST, SumBackend, scheduler, text


def test_rows_come_back_in_request_order_whatever_the_lengths() -> None:
    backend, engine = SumBackend(), scheduler(workers=3)
    texts = [text(length, value) for value, length in enumerate([3, 1, 3, 9, 40, 1, 3], start=1)]
    rows = engine.submit(backend, texts, dimensions=DIMENSIONS, lane="small").result(5)
    assert rows.tolist() == [[ids.sum(), len(ids)] for ids in texts]
    engine.close()


def test_a_micro_batch_holds_one_length_and_stays_in_its_budget() -> None:
    backend, engine = SumBackend(), scheduler()
    texts = [text(length) for length in [4, 8, 4, 4, 4, 4, 8, 100]]
    engine.submit(backend, texts, dimensions=DIMENSIONS, lane="bulk").result(5)
    shapes = [[len(ids) for ids in batch] for batch in backend.batches]
    assert all(len(set(lengths)) == 1 for lengths in shapes)
    assert all(sum(lengths) <= 16 or len(lengths) == 1 for lengths in shapes)
    assert [4, 4, 4, 4] in shapes  # five texts of four tokens: four fit the budget of 16
    engine.close()


def test_texts_of_one_bucket_come_together_and_count_as_long_as_they_run() -> None:
    backend, engine = SumBackend(bucket_tokens=8), scheduler()
    backend.gate.clear()
    texts = [text(100), *(text(length) for length in [1, 8, 9, 5, 3])]
    rows = engine.submit(backend, texts, dimensions=DIMENSIONS, lane="bulk")
    backend.gate.set()
    assert rows.result(5)[:, 1].tolist() == [len(ids) for ids in texts]
    shapes = [[len(ids) for ids in batch] for batch in backend.batches]
    # Two texts at 8 tokens fit the budget of 16, and a worker stays with one bucket in this lane.
    assert shapes == [[100], [1, 8], [5, 3], [9]]
    engine.close()


def test_a_text_that_the_backend_cannot_take_is_refused_before_it_is_queued() -> None:
    backend, engine = SumBackend(), scheduler()
    texts = [text(1), text(LONGEST + 1)]
    with pytest.raises(ModelError, match="too long"):
        engine.submit(backend, texts, dimensions=DIMENSIONS, lane="bulk")
    assert engine.queued_tokens("bulk") + engine.queued_tokens("small") == 0
    assert backend.batches == []
    engine.close()


def test_small_requests_overtake_bulk_but_bulk_keeps_its_share() -> None:
    backend, engine = SumBackend(), scheduler()
    backend.gate.clear()
    waiting = [engine.submit(backend, [text(16, 1)], dimensions=DIMENSIONS, lane="bulk")]
    assert backend.has_started.wait(5)  # the only worker is busy with the first one
    waiting += [
        engine.submit(backend, [text(16, 2)], dimensions=DIMENSIONS, lane="bulk") for _ in range(3)
    ]
    waiting += [
        engine.submit(backend, [text(16, 3)], dimensions=DIMENSIONS, lane="small")
        for _ in range(10)
    ]
    backend.gate.set()
    for future in waiting:
        future.result(5)
    order = [int(batch[0][0]) for batch in backend.batches[1:]]
    assert order.index(2) > 0, "a small request goes first"
    assert order[:5].count(2) == 1, "one batch in five is bulk"
    engine.close()


def test_a_full_queue_refuses_the_whole_request_at_once() -> None:
    backend, engine = SumBackend(), scheduler(queue_tokens=100)
    backend.gate.clear()
    first = engine.submit(backend, [text(10)], dimensions=DIMENSIONS, lane="small")
    assert backend.has_started.wait(5)
    second = engine.submit(backend, [text(90)], dimensions=DIMENSIONS, lane="small")
    with pytest.raises(OverloadedError, match="server busy, please try again"):
        engine.submit(backend, [text(11)], dimensions=DIMENSIONS, lane="small")
    backend.gate.set()
    first.result(5)
    second.result(5)
    assert engine.queued_tokens("bulk") + engine.queued_tokens("small") == 0
    engine.close()


def test_room_is_told_before_there_is_anything_to_queue() -> None:
    backend, engine = SumBackend(), scheduler(queue_tokens=100)
    # A request larger than all of the queue waits for none.
    assert engine.excess_s(backend, "small", 500, coming=0) == 0
    assert engine.excess_s(backend, "small", 20, coming=80) == 0
    assert engine.excess_s(backend, "small", 20, coming=81) > 0, "what comes before counts too"
    backend.gate.clear()
    first = engine.submit(backend, [text(10)], dimensions=DIMENSIONS, lane="small")
    assert backend.has_started.wait(5)
    second = engine.submit(backend, [text(90)], dimensions=DIMENSIONS, lane="small")
    assert engine.excess_s(backend, "small", 10, coming=0) == 0
    assert engine.excess_s(backend, "small", 11, coming=0) > 0
    assert engine.excess_s(backend, "small", 1, coming=10) > 0
    assert engine.excess_s(backend, "bulk", 11, coming=0) == 0, "each lane has its own limit"
    third = engine.submit(
        backend, [text(11)], dimensions=DIMENSIONS, lane="small", when_full="queue"
    )
    backend.gate.set()
    for future in (first, second, third):
        future.result(5)
    engine.close()


def test_a_queue_is_judged_by_full_runs_where_runs_have_a_fixed_number_of_texts() -> None:
    """One text alone takes as long as a hundred, and says so of the queue's time."""
    backend, engine = SumBackend(fixed_texts=100), scheduler(queue_s=1)
    backend.gate.clear()
    alone = engine.submit(backend, [text(10)], dimensions=DIMENSIONS, lane="small")
    assert backend.has_started.wait(5)
    time.sleep(0.1)
    backend.gate.set()
    alone.result(5)
    backend.gate.clear()
    # At 0.1 s for each 10 tokens, 40 texts would take four seconds.
    waiting = [
        engine.submit(backend, [text(10)] * 20, dimensions=DIMENSIONS, lane="small")
        for _ in range(3)
    ]
    backend.gate.set()
    for future in waiting:
        future.result(5)
    engine.close()


def test_a_text_is_alone_while_nothing_else_waits_or_runs() -> None:
    backend, engine = SumBackend(), scheduler(workers=2)
    backend.gate.clear()
    futures = [engine.submit(backend, [text(3)], dimensions=DIMENSIONS, lane="small")]
    assert backend.has_started.wait(5)
    futures.append(engine.submit(backend, [text(4)], dimensions=DIMENSIONS, lane="small"))
    end_s = time.monotonic() + 5
    while len(backend.were_alone) < 2:
        assert time.monotonic() < end_s
        time.sleep(0.001)
    # Two lengths, so two runs: one of them is not the last.
    futures.append(engine.submit(backend, [text(5), text(6)], dimensions=DIMENSIONS, lane="small"))
    backend.gate.set()
    for future in futures:
        future.result(5)
    assert backend.were_alone[:3] == [True, False, False]
    engine.submit(backend, [text(7)], dimensions=DIMENSIONS, lane="small").result(5)
    assert backend.were_alone[4]
    engine.close()


def test_a_cancelled_request_is_not_encoded() -> None:
    backend, engine = SumBackend(), scheduler()
    backend.gate.clear()
    first = engine.submit(backend, [text(5, 1)], dimensions=DIMENSIONS, lane="small")
    assert backend.has_started.wait(5)
    dropped = engine.submit(backend, [text(6, 7)], dimensions=DIMENSIONS, lane="small")
    assert dropped.cancel()
    backend.gate.set()
    first.result(5)
    last = engine.submit(backend, [text(7, 1)], dimensions=DIMENSIONS, lane="small")
    last.result(5)
    assert all(7 not in ids for batch in backend.batches for ids in batch)
    engine.close()


def test_one_bad_text_fails_its_own_request_only() -> None:
    backend, engine = SumBackend(poison=666), scheduler()
    backend.gate.clear()
    blocker = engine.submit(backend, [text(2)], dimensions=DIMENSIONS, lane="bulk")
    assert backend.has_started.wait(5)
    good = engine.submit(backend, [text(4, 1)], dimensions=DIMENSIONS, lane="bulk")
    bad = engine.submit(backend, [text(4, 2), text(4, 666)], dimensions=DIMENSIONS, lane="bulk")
    backend.gate.set()
    blocker.result(5)
    assert good.result(5).tolist() == [[4, 4]]
    with pytest.raises(ModelError, match="Text 1 could not be embedded"):
        bad.result(5)
    after = engine.submit(backend, [text(4, 3)], dimensions=DIMENSIONS, lane="bulk")
    assert after.result(5).tolist() == [[12, 4]], "the worker lives on"
    engine.close()


def test_no_texts_give_no_rows_without_a_worker() -> None:
    engine = scheduler()
    empty = engine.submit(SumBackend(), [], dimensions=DIMENSIONS, lane="small")
    assert empty.result(0).shape == (0, DIMENSIONS)
    engine.close()


def test_a_patient_caller_waits_for_room_and_the_other_lane_is_not_concerned() -> None:
    backend, engine = SumBackend(), scheduler(queue_tokens=100)
    backend.gate.clear()
    futures = [engine.submit(backend, [text(90)], dimensions=DIMENSIONS, lane="bulk")]
    assert backend.has_started.wait(5)
    futures.append(engine.submit(backend, [text(90)], dimensions=DIMENSIONS, lane="bulk"))
    waiting = threading.Thread(
        target=lambda: futures.append(
            engine.submit(backend, [text(95)], dimensions=DIMENSIONS, lane="bulk", when_full="wait")
        )
    )
    waiting.start()
    futures.append(engine.submit(backend, [text(90)], dimensions=DIMENSIONS, lane="small"))
    assert len(futures) == 3, "the patient one still waits"
    backend.gate.set()
    waiting.join(5)
    assert [future.result(5).shape for future in futures] == [(1, DIMENSIONS)] * 4
    engine.close()


def test_a_patient_caller_is_let_go_when_the_engine_closes() -> None:
    backend, engine = SumBackend(), scheduler(queue_tokens=100)
    backend.gate.clear()
    engine.submit(backend, [text(90)], dimensions=DIMENSIONS, lane="bulk")
    assert backend.has_started.wait(5)
    engine.submit(backend, [text(90)], dimensions=DIMENSIONS, lane="bulk")
    errors: list[OverloadedError] = []

    def wait() -> None:
        try:
            engine.submit(backend, [text(95)], dimensions=DIMENSIONS, lane="bulk", when_full="wait")
        except OverloadedError as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    engine.close(timeout_s=0.2)
    waiting.join(5)
    assert len(errors) == 1
    backend.gate.set()


def test_a_model_of_other_dimensions_fails_its_requests_and_no_worker() -> None:
    backend, engine = SumBackend(), scheduler(workers=2)
    for _ in range(3):
        wrong = engine.submit(backend, [text(3), text(3)], dimensions=5, lane="small")
        with pytest.raises(ModelError, match="does not fit its graph"):
            wrong.result(5)
    right = engine.submit(backend, [text(3)], dimensions=DIMENSIONS, lane="small")
    assert right.result(5).tolist() == [[3, 3]]
    engine.close()
