"""Workers that hang or die, queues that take too long, and an engine that closes."""

import gc
import logging
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from embedserve.engine.scheduler import BatchReport, Scheduler
from embedserve.errors import ModelError, OverloadedError
from embedserve.types import BatchTokens, TokenIds, Vectors
from tests.sum_backend import DIMENSIONS, SumBackend, scheduler, text


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


def test_a_text_that_never_comes_back_fails_alone_and_its_worker_is_replaced() -> None:
    class Wedged(SumBackend):
        def run(self, texts: Sequence[TokenIds], *, is_alone: bool = False) -> Vectors:
            if any((ids == 666).any() for ids in texts):
                never.wait(20)
            return super().run(texts, is_alone=is_alone)

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
        def run(self, texts: Sequence[TokenIds], *, is_alone: bool = False) -> Vectors:
            if any((ids == 666).any() for ids in texts):
                raise SystemExit
            return super().run(texts, is_alone=is_alone)

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
    engine = Scheduler(
        workers=1, batch_tokens=BatchTokens(16, 16), queue_tokens=1000, report=reports.append
    )
    engine.submit(backend, [text(3), text(5)], dimensions=DIMENSIONS, lane="bulk").result(5)
    engine.close()
    assert [(one.lane, one.texts, one.tokens) for one in reports] in (
        [("bulk", 2, 16)],
        [("bulk", 1, 8), ("bulk", 1, 8)],
    )
    assert all(one.waited_s >= 0 and one.run_s >= 0 for one in reports)


def test_a_text_that_hangs_among_those_of_a_failed_batch_takes_no_other_with_it() -> None:
    class FailsThenHangs(SumBackend):
        def run(self, texts: Sequence[TokenIds], *, is_alone: bool = False) -> Vectors:
            if len(texts) > 1:
                self.gate.wait(10)
                raise ValueError("not together")
            if (texts[0] == 666).any():
                never.wait(20)
            return super().run(texts, is_alone=is_alone)

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
        def run(self, texts: Sequence[TokenIds], *, is_alone: bool = False) -> Vectors:
            time.sleep(0.05)
            return super().run(texts, is_alone=is_alone)

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


@pytest.mark.parametrize("what", ["dropped", "failed"])
def test_requests_that_are_over_keep_no_model_in_memory(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="embedserve.engine")  # a record keeps its traceback
    blocking, over, engine = SumBackend(), SumBackend(poison=666), scheduler()
    is_gone = weakref.ref(over)
    blocking.gate.clear()
    first = engine.submit(blocking, [text(2)], dimensions=DIMENSIONS, lane="small")
    assert blocking.has_started.wait(5)
    future = engine.submit(over, [text(2, 666)], dimensions=DIMENSIONS, lane="small")
    if what == "dropped":
        assert future.cancel()
    gc.disable()  # what only a collection would find counts as kept
    try:
        blocking.gate.set()
        first.result(5)
        if what == "failed":
            assert isinstance(future.exception(5), ModelError)
        del over, future
        deadline = time.monotonic() + 5
        while is_gone() is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert is_gone() is None
    finally:
        gc.enable()
        engine.close()
