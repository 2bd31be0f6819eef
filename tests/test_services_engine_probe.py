"""Readiness answers in time, whatever state the engine is in."""

import threading
import time
from typing import cast

import pytest

from embedserve.engine.scheduler import Scheduler
from embedserve.errors import ModelError, OverloadedError
from embedserve.services.encoders import Encoders
from embedserve.services.engine_probe import EngineProbe


class StubScheduler:
    """What the probe asks a scheduler."""

    is_stuck = False

    def queued_tokens(self, lane: str) -> int:
        return 7


class SlowCanary:
    """Encoders whose canary takes until `answer` is set."""

    def __init__(self, *, is_loaded: bool = True) -> None:
        self.answer = threading.Event()
        self.checks = 0
        self._is_loaded = is_loaded

    def is_loaded(self, name: str) -> bool:
        return self._is_loaded

    def check_canary(self, name: str, *, timeout_s: float) -> None:
        self.checks += 1
        self.answer.wait(10)


def probe(encoders: SlowCanary, scheduler: StubScheduler | None = None) -> EngineProbe:
    return EngineProbe(
        cast(Scheduler, scheduler or StubScheduler()),
        cast(Encoders, encoders),
        default_model="one",
        timeout_s=0.05,
    )


def test_stuck_engine_is_said_and_not_asked() -> None:
    scheduler, encoders = StubScheduler(), SlowCanary()
    asked = probe(encoders, scheduler)
    asked.check_engine()
    scheduler.is_stuck = True
    with pytest.raises(ModelError, match="Every worker of the engine is overdue"):
        asked.check_engine()
    with pytest.raises(OverloadedError, match="Not checked"):
        asked.check_model()
    assert encoders.checks == 0


@pytest.mark.parametrize(
    ("is_loaded", "words"), [(True, "behind 7 tokens"), (False, "`one` is being loaded")]
)
def test_canary_that_does_not_come_is_not_waited_for(is_loaded: bool, words: str) -> None:
    encoders = SlowCanary(is_loaded=is_loaded)
    asked = probe(encoders)
    started = time.monotonic()
    for _ in range(3):
        with pytest.raises(OverloadedError, match=words):
            asked.check_model()
    assert time.monotonic() - started < 2
    assert encoders.checks == 1, "probes share one check"
    encoders.answer.set()
    asked.check_model()
    asked.close()
