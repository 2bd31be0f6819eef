"""The scheduler against small real backends: order, fairness, refusal, failure."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from embedserve.engine.backend import BackendOptions, EngineFacts
from embedserve.engine.scheduler import BatchReport, Scheduler
from embedserve.errors import ModelError, OverloadedError
from embedserve.types import TokenIds, Vectors

DIMENSIONS = 2
LONGEST = 1000


class SumBackend:
    """Give each row (sum of its ids, length); optionally wait at a gate or fail on an id.

    Texts of `bucket_tokens`, and of each multiple of it, may come together.
    """

    def __init__(self, *, poison: int | None = None, bucket_tokens: int = 1) -> None:
        self.batches: list[list[TokenIds]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.has_started = threading.Event()
        self._poison = poison
        self._bucket_tokens = bucket_tokens

    @classmethod
    def facts(cls) -> EngineFacts:
        return EngineFacts("sum", "sum 1", is_available=True)

    @classmethod
    def load(cls, onnx_path: Path, options: BackendOptions) -> Self:
        return cls()

    def bucket(self, length: int) -> int:
        if length > LONGEST:
            raise ModelError("too long")
        return -(-length // self._bucket_tokens) * self._bucket_tokens

    def run(self, texts: Sequence[TokenIds]) -> Vectors:
        self.batches.append(list(texts))
        self.has_started.set()
        self.gate.wait(10)
        if any((ids == self._poison).any() for ids in texts):
            raise ValueError("poison")
        return np.array([[ids.sum(), len(ids)] for ids in texts], dtype=np.float32)

    def close(self) -> None:
        pass


def text(length: int, value: int = 1) -> TokenIds:
    return np.full(length, value, dtype=np.int64)


def scheduler(
    *,
    workers: int = 1,
    queue_tokens: int = 10_000,
    queue_s: float = 100,
    worker_timeout_s: float = 30,
) -> Scheduler:
    return Scheduler(
        workers=workers,
        micro_batch_tokens=16,
        queue_tokens=queue_tokens,
        queue_s=queue_s,
        worker_timeout_s=worker_timeout_s,
    )


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


def test_closing_finishes_what_is_queued_and_refuses_more() -> None:
    backend, engine = SumBackend(), scheduler()
    futures: list[Future[Vectors]] = [
        engine.submit(backend, [text(3)], dimensions=DIMENSIONS, lane="bulk") for _ in range(20)
    ]
    engine.close()
    assert all(future.result(0).shape == (1, DIMENSIONS) for future in futures)
    with pytest.raises(OverloadedError):
        engine.submit(backend, [text(3)], dimensions=DIMENSIONS, lane="bulk")


def test_closing_fails_what_a_stuck_backend_would_never_finish() -> None:
    backend, engine = SumBackend(), scheduler()
    backend.gate.clear()
    engine.submit(backend, [text(3)], dimensions=DIMENSIONS, lane="bulk")
    assert backend.has_started.wait(5)
    queued = engine.submit(backend, [text(3)], dimensions=DIMENSIONS, lane="bulk")
    started = time.monotonic()
    engine.close(timeout_s=0.2)
    assert time.monotonic() - started < 5
    with pytest.raises(OverloadedError):
        queued.result(1)
    backend.gate.set()


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
            engine.submit(backend, [text(95)], dimensions=DIMENSIONS, lane="bulk", is_patient=True)
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
            engine.submit(backend, [text(95)], dimensions=DIMENSIONS, lane="bulk", is_patient=True)
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


def test_a_text_that_never_comes_back_fails_alone_and_its_worker_is_replaced() -> None:
    class Wedged(SumBackend):
        def run(self, texts: Sequence[TokenIds]) -> Vectors:
            if any((ids == 666).any() for ids in texts):
                never.wait(20)
            return super().run(texts)

    never = threading.Event()
    backend, engine = Wedged(), scheduler(workers=1, worker_timeout_s=0.2)
    backend.gate.clear()
    blocker = engine.submit(backend, [text(2)], dimensions=DIMENSIONS, lane="bulk")
    assert backend.has_started.wait(5)
    good = engine.submit(backend, [text(4, 1)], dimensions=DIMENSIONS, lane="bulk")
    bad = engine.submit(backend, [text(4, 666)], dimensions=DIMENSIONS, lane="bulk")
    backend.gate.set()
    blocker.result(5)
    assert good.result(5).tolist() == [[4, 4]], "it was in one batch with the other"
    with pytest.raises(ModelError, match="did not come back"):
        bad.result(5)
    assert engine.restarts == 2, "once for the batch, once for the text alone"
    after = engine.submit(backend, [text(4, 3)], dimensions=DIMENSIONS, lane="bulk")
    assert after.result(5).tolist() == [[12, 4]]
    assert not engine.is_stuck
    never.set()
    engine.close()


def test_a_worker_that_dies_is_replaced() -> None:
    class Deadly(SumBackend):
        def run(self, texts: Sequence[TokenIds]) -> Vectors:
            if any((ids == 666).any() for ids in texts):
                raise SystemExit
            return super().run(texts)

    backend, engine = Deadly(), scheduler(workers=1)
    bad = engine.submit(backend, [text(4, 666)], dimensions=DIMENSIONS, lane="small")
    with pytest.raises(ModelError, match="did not come back"):
        bad.result(5)
    good = engine.submit(backend, [text(4, 2)], dimensions=DIMENSIONS, lane="small")
    assert good.result(5).tolist() == [[8, 4]]
    assert engine.restarts == 1
    engine.close()


def test_a_queue_that_would_take_too_long_refuses_and_says_when_to_come_back() -> None:
    backend, engine = SumBackend(), scheduler(queue_s=0.05)
    backend.gate.clear()
    slow = engine.submit(backend, [text(10)], dimensions=DIMENSIONS, lane="small")
    assert backend.has_started.wait(5)
    time.sleep(0.2)  # so that the model is known to be slow: 50 tokens a second at most
    backend.gate.set()
    slow.result(5)
    backend.has_started.clear()
    backend.gate.clear()
    waiting = [engine.submit(backend, [text(10)], dimensions=DIMENSIONS, lane="small")]
    assert backend.has_started.wait(5)
    waiting.append(engine.submit(backend, [text(100)], dimensions=DIMENSIONS, lane="small"))
    with pytest.raises(OverloadedError, match="server busy") as refused:
        engine.submit(backend, [text(1)], dimensions=DIMENSIONS, lane="small")
    assert refused.value.retry_after_s is not None
    assert 1 <= refused.value.retry_after_s <= 10
    bulk = engine.submit(backend, [text(1)], dimensions=DIMENSIONS, lane="bulk")
    backend.gate.set()
    assert [future.result(5).shape for future in (*waiting, bulk)] == [(1, DIMENSIONS)] * 3
    engine.close()


def test_nobody_waits_beyond_the_time_limit_of_a_request() -> None:
    backend, engine = SumBackend(), scheduler()
    backend.gate.clear()
    first = engine.submit(backend, [text(5)], dimensions=DIMENSIONS, lane="small")
    assert backend.has_started.wait(5)
    late = engine.submit(backend, [text(6, 7)], dimensions=DIMENSIONS, lane="small", timeout_s=0.01)
    time.sleep(0.02)
    backend.gate.set()
    first.result(5)
    with pytest.raises(OverloadedError, match="time limit"):
        late.result(5)
    assert all(7 not in ids for batch in backend.batches for ids in batch)
    engine.close()


def test_what_ran_is_reported() -> None:
    reports: list[BatchReport] = []
    backend = SumBackend(bucket_tokens=8)
    engine = Scheduler(workers=1, micro_batch_tokens=16, queue_tokens=1000, report=reports.append)
    engine.submit(backend, [text(3), text(5)], dimensions=DIMENSIONS, lane="bulk").result(5)
    engine.close()
    assert [(one.lane, one.texts, one.tokens) for one in reports] in (
        [("bulk", 2, 16)],
        [("bulk", 1, 8), ("bulk", 1, 8)],
    )
    assert all(one.waited_s >= 0 and one.run_s >= 0 for one in reports)


def test_a_text_that_hangs_among_those_of_a_failed_batch_takes_no_other_with_it() -> None:
    class FailsThenHangs(SumBackend):
        def run(self, texts: Sequence[TokenIds]) -> Vectors:
            if len(texts) > 1:
                self.gate.wait(10)
                raise ValueError("not together")
            if (texts[0] == 666).any():
                never.wait(20)
            return super().run(texts)

    never = threading.Event()
    backend, engine = FailsThenHangs(), scheduler(workers=1, worker_timeout_s=0.2)
    backend.gate.clear()
    blocker = engine.submit(backend, [text(2)], dimensions=DIMENSIONS, lane="bulk")
    assert backend.has_started.wait(5)
    values = [1, 666, 2, 3]
    waiting = [
        engine.submit(backend, [text(4, value)], dimensions=DIMENSIONS, lane="bulk")
        for value in values
    ]
    backend.gate.set()
    blocker.result(5)
    with pytest.raises(ModelError, match="did not come back"):
        waiting[1].result(5)
    for value, future in zip(values, waiting, strict=True):
        if value != 666:
            assert future.result(5).tolist() == [[4 * value, 4]]
    never.set()
    engine.close()


def test_the_queue_of_a_fast_model_does_not_keep_a_slow_one_out() -> None:
    class Slow(SumBackend):
        def run(self, texts: Sequence[TokenIds]) -> Vectors:
            time.sleep(0.05)
            return super().run(texts)

    fast, slow, engine = SumBackend(), Slow(), scheduler(queue_s=0.5)
    for backend in (fast, slow):
        engine.submit(backend, [text(10)], dimensions=DIMENSIONS, lane="small").result(5)
    fast.gate.clear()
    fast.has_started.clear()
    waiting = [engine.submit(fast, [text(10)], dimensions=DIMENSIONS, lane="small")]
    assert fast.has_started.wait(5)
    # At the slow model's 200 tokens a second these would take 5 s.
    waiting += [engine.submit(fast, [text(1000)], dimensions=DIMENSIONS, lane="small")]
    waiting += [engine.submit(slow, [text(10)], dimensions=DIMENSIONS, lane="small")]
    fast.gate.set()
    assert [future.result(5).shape for future in waiting] == [(1, DIMENSIONS)] * 3
    engine.close()


def test_closing_fails_what_a_stuck_worker_has() -> None:
    backend, engine = SumBackend(), scheduler()
    backend.gate.clear()
    stuck = engine.submit(backend, [text(3)], dimensions=DIMENSIONS, lane="bulk")
    assert backend.has_started.wait(5)
    engine.close(timeout_s=0.1)
    with pytest.raises(OverloadedError, match="stopped"):
        stuck.result(1)
    backend.gate.set()
