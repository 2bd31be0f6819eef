"""Which models stay in memory: by time, by room, and while somebody uses them."""

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from embedserve.engine.encoder import Encoder
from embedserve.errors import ModelError, OverloadedError
from embedserve.services.alarm import Alarm
from embedserve.services.canary import CanaryCheck
from embedserve.services.memory import available_bytes, resident_bytes
from embedserve.services.residency import Residency
from embedserve.services.residents import MIB, Residents
from embedserve.types import EncoderSpec

CANARY = CanaryCheck("a", np.zeros(2, np.float32), "cpu", "engine 1", is_exact=True, words="exact")


class UsedEncoder:
    """What the residents look at of an Encoder."""

    def __init__(self, artefact: str) -> None:
        path = Path("unused")
        self.spec = EncoderSpec(artefact, path, path, max_tokens=8, dimensions=2)
        self.is_busy = False
        self.used_s = 0.0

    def touch(self) -> None:
        self.used_s = time.monotonic()


def load(residents: Residents, name: str, mib: int = 1) -> Encoder:
    with residents.room_for(name, mib * MIB):
        encoder = cast(Encoder, UsedEncoder(name))
    residents.add(name, encoder, CANARY, mib * MIB)
    residents.name((name, "", "", ""), encoder)
    return encoder


def names(residents: Residents) -> list[str]:
    return sorted(model.name for model in residents.loaded())


def wait_until(is_true: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 5
    while not is_true():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def test_unused_model_is_let_go_and_freed() -> None:
    residents = Residents(Residency(keep_alive_s=0.05))
    trace = weakref.ref(load(residents, "one"))
    assert names(residents) == ["one"]
    assert residents.by_name(("one", "", "", "")) is trace()
    wait_until(lambda: not names(residents))
    assert residents.by_name(("one", "", "", "")) is None
    wait_until(lambda: trace() is None)
    assert residents.unloads == {"expired": 1}
    assert residents.canary("one") is None


def test_no_more_models_stay_than_are_allowed() -> None:
    residents = Residents(Residency(max_models=2))
    residents.kept_artefact = "default"
    for name in ("default", "one", "two", "three"):
        load(residents, name)
        time.sleep(0.002)  # so that one was used longer ago than the next
    assert names(residents) == ["default", "three", "two"]
    assert residents.unloads == {"memory": 1}
    # While others load, there may be nothing left to let go for one more.
    with residents.room_for("four", MIB), residents.room_for("five", MIB):
        assert names(residents) == ["default"]
        with (
            pytest.raises(OverloadedError, match="EMBEDSERVE_MAX_LOADED_MODELS"),
            residents.room_for("six", MIB),
        ):
            pass
    residents.close()


def test_use_begins_the_time_anew() -> None:
    residents = Residents(Residency(keep_alive_s=0.2))
    encoder = load(residents, "one")
    for _ in range(8):
        time.sleep(0.05)
        encoder.touch()
    assert names(residents) == ["one"]
    wait_until(lambda: not names(residents))


def test_model_at_work_stays_past_its_time() -> None:
    residents = Residents(Residency())
    encoder = cast(UsedEncoder, load(residents, "one"))
    encoder.is_busy = True
    residents.set_keep_alive(cast(Encoder, encoder), 0)
    time.sleep(0.05)
    assert names(residents) == ["one"]
    encoder.is_busy = False
    wait_until(lambda: not names(residents))


def test_keep_alive_of_a_request_goes_before_the_setting() -> None:
    residents = Residents(Residency(keep_alive_s=0.05))
    forever, long, now = (load(residents, name) for name in ("forever", "long", "now"))
    residents.set_keep_alive(forever, -1)
    residents.set_keep_alive(long, 600)
    residents.set_keep_alive(now, 0)
    wait_until(lambda: names(residents) == ["forever", "long"])
    time.sleep(0.1)
    [first, second] = residents.loaded()
    assert (first.name, first.expires_at, first.counted_bytes) == ("forever", None, MIB)
    assert second.name == "long"
    assert second.expires_at is not None
    left = second.expires_at - datetime.now(UTC)
    assert timedelta(seconds=590) < left < timedelta(seconds=601)


def test_default_model_stays_whatever_a_request_says() -> None:
    residents = Residents(Residency(keep_alive_s=0.01, memory_bytes=2 * MIB))
    residents.kept_artefact = "default"
    default = load(residents, "default")
    residents.set_keep_alive(default, 0)
    load(residents, "one")
    load(residents, "two")
    wait_until(lambda: names(residents) == ["default"])


def test_least_recently_used_goes_for_the_room_of_another() -> None:
    residents = Residents(Residency(memory_bytes=3 * MIB))
    first = load(residents, "first")
    load(residents, "second")
    load(residents, "third")
    first.touch()
    load(residents, "large", 2)
    assert names(residents) == ["first", "large"]
    assert residents.unloads == {"memory": 2}
    assert residents.loads == 4


def test_idle_models_go_before_those_at_work_whose_room_would_not_come() -> None:
    residents = Residents(Residency(memory_bytes=3 * MIB))
    working = cast(UsedEncoder, load(residents, "working"))
    working.is_busy = True
    load(residents, "idle").touch()
    load(residents, "next", 2)
    assert names(residents) == ["next", "working"]


def test_room_of_models_that_are_going_is_not_counted_twice() -> None:
    residents = Residents(Residency(memory_bytes=3 * MIB, going_s=0.05))
    held = load(residents, "held", 2)
    with pytest.raises(OverloadedError):
        load(residents, "large", 3)
    load(residents, "small")
    # `held` was let go and is in use: the room of `small` is what can come.
    load(residents, "other")
    assert names(residents) == ["other"]
    assert residents.by_artefact("held") is held


def test_model_that_can_never_fit_says_which_setting_to_raise() -> None:
    residents = Residents(Residency(memory_bytes=3 * MIB))
    load(residents, "small")
    with pytest.raises(ModelError, match=r"`huge` counts 4 MiB.*EMBEDSERVE_MODELS_MEMORY_BYTES"):
        load(residents, "huge", 4)
    assert names(residents) == ["small"], "nothing went for what cannot be"
    residents.kept_artefact = "small"
    with pytest.raises(ModelError, match="beside the default model's 1 MiB"):
        load(residents, "large", 3)


def test_room_of_a_model_in_use_is_waited_for() -> None:
    residents = Residents(Residency(memory_bytes=2 * MIB))
    held = [load(residents, "held", 2)]
    threading.Timer(0.1, held.clear).start()
    started = time.monotonic()
    load(residents, "next", 2)
    assert time.monotonic() - started >= 0.09
    assert names(residents) == ["next"]


def test_room_that_does_not_come_is_said_and_who_holds_it_keeps_it() -> None:
    residents = Residents(Residency(memory_bytes=2 * MIB, going_s=0.05))
    held = load(residents, "held", 2)
    with pytest.raises(OverloadedError, match=r"are in use.*models_memory_bytes"):
        load(residents, "next", 2)
    assert names(residents) == []
    assert residents.by_artefact("held") is held, "taken back, not loaded twice"
    assert names(residents) == ["held"]


def test_models_that_load_at_once_share_the_room() -> None:
    residents = Residents(Residency(memory_bytes=2 * MIB))
    with residents.room_for("one", MIB):
        two = residents.room_for("two", MIB)
        with two, pytest.raises(OverloadedError, match="being loaded now"):
            load(residents, "three")
        load(residents, "three")


def test_artefacts_that_are_not_installed_any_more_go() -> None:
    residents = Residents(Residency())
    load(residents, "stays")
    load(residents, "goes")
    residents.follow({}, {"stays"})
    assert names(residents) == ["stays"]
    assert residents.unloads == {"removed": 1}
    assert residents.names() == []


def test_names_follow_their_artefacts() -> None:
    residents = Residents(Residency())
    one, _ = load(residents, "one"), load(residents, "two")
    key, other = ("one", "", "", ""), ("two", "", "", "")
    residents.follow({key: "new", other: "one"}, {"new", "one", "two"})
    assert residents.by_name(key) is None, "not loaded yet"
    assert residents.by_name(other) is one


class Looks:
    """Counts how often it is looked at, and says when to come back."""

    def __init__(self, *dues_s: float) -> None:
        self.count = 0
        self.dues_s = list(dues_s)

    def look(self) -> float | None:
        self.count += 1
        return self.dues_s.pop(0) if self.dues_s else None


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "test-alarm"]


def test_alarm_sleeps_until_something_is_due_and_ends_with_its_owner() -> None:
    looks = Looks(time.monotonic() + 0.1)
    alarm = Alarm(looks.look, name="test-alarm")
    assert not watchers(), "nothing runs before there is something to watch"
    alarm.wake()
    wait_until(lambda: looks.count == 1)
    wait_until(lambda: looks.count == 2)
    time.sleep(0.1)
    assert looks.count == 2, "nothing is due: it sleeps"
    alarm.nudge()
    wait_until(lambda: looks.count == 3)
    del alarm
    gc.collect()
    wait_until(lambda: not watchers())


def test_memory_is_the_least_of_the_limits_above_the_process(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/system/server\n")
    machine = available_bytes(own, tmp_path / "none")
    assert machine > 64 * MIB
    (tmp_path / "system" / "server").mkdir(parents=True)
    (tmp_path / "system" / "server" / "memory.max").write_text("max\n")
    (tmp_path / "system" / "memory.max").write_text(f"{32 * MIB}\n")
    assert available_bytes(own, tmp_path) == 32 * MIB
    (tmp_path / "memory.max").write_text(f"{16 * MIB}\n")
    assert available_bytes(own, tmp_path) == 16 * MIB


def test_memory_that_a_process_holds_is_told_until_it_is_gone() -> None:
    before = resident_bytes()
    held = np.ones(64 * MIB, dtype=np.int8)
    assert resident_bytes() - before > 32 * MIB
    del held
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert resident_bytes(other.pid) > 0
    with pytest.raises(OSError, match=str(other.pid)):
        resident_bytes(other.pid)
