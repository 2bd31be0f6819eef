"""Which models are in memory, and when each is let go. Loads nothing and closes nothing.

Whoever uses a model holds its Encoder, so one that is let go serves them to their end and its
memory goes with the last of them. Until then it counts, and is taken back if it is asked for.
"""

import logging
import time
import weakref
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from queue import Empty, SimpleQueue
from threading import RLock

from embedserve.engine.encoder import Encoder
from embedserve.errors import ModelError, OverloadedError
from embedserve.services.alarm import Alarm
from embedserve.services.canary import CanaryCheck
from embedserve.services.memory import FreedMemory, available_bytes
from embedserve.services.residency import LoadedModel, Reason, Residency, Resident

logger = logging.getLogger(__name__)

NameKey = tuple[str, str, str, str]  # `ModelName.key`

_LOOK_AGAIN_S = 0.2
MIB = 1024 * 1024


class Residents:
    """The models in memory, by artefact and by name; safe from any number of threads."""

    def __init__(self, residency: Residency, freed: FreedMemory | None = None) -> None:
        self.loads = 0
        self.unloads: Counter[Reason] = Counter()
        self.kept_artefact: str | None = None
        """The one that is never let go for time or room."""
        self._residency = residency
        self._budget_bytes = residency.memory_bytes or available_bytes() // 2
        self._by_artefact: dict[str, Resident] = {}
        self._by_name: dict[NameKey, Encoder] = {}
        self._reserved_bytes = 0
        self._reserved_models = 0
        self._freed = freed or FreedMemory()
        # Reentrant: what dies while it is held may bring its finalizers along.
        self._lock = RLock()
        self._alarm = Alarm(self._look, name="models-expiry")

    def by_name(self, key: NameKey) -> Encoder | None:
        """Return the encoder of a name; reading a dict is atomic, so this takes no lock."""
        return self._by_name.get(key)

    def by_artefact(self, artefact: str) -> Encoder | None:
        """Return the encoder of an artefact; what was let go and is still in use is taken back."""
        with self._lock:
            resident = self._by_artefact.get(artefact)
            if resident is None or resident.held is not None:
                return resident.held if resident else None
            if encoder := resident.living():
                encoder.touch()
                resident.held, resident.keep_alive_s = encoder, self._residency.keep_alive_s
                self._alarm.wake()
            return encoder

    def canary(self, artefact: str) -> CanaryCheck | None:
        """Return how the canary of a model in memory compared; None: it is not there."""
        resident = self._by_artefact.get(artefact)
        return resident.canary if resident and resident.held else None

    def add(self, name: str, encoder: Encoder, canary: CanaryCheck, counted_bytes: int) -> None:
        """Keep a model that was loaded."""
        artefact = encoder.spec.artefact
        with self._lock:
            self._forget_dead()
            living = weakref.ref(encoder)
            self._by_artefact[artefact] = Resident(
                name,
                artefact,
                canary,
                counted_bytes,
                self._residency.keep_alive_s,
                living,
                held=encoder,
            )
            encoder.touch()
            self.loads += 1
        weakref.finalize(encoder, self._alarm.nudge).atexit = False
        self._alarm.wake()
        self._freed.tell()  # what it was read and compiled from

    def name(self, key: NameKey, encoder: Encoder) -> None:
        """Let a name lead to a model that is kept."""
        with self._lock:
            resident = self._by_artefact.get(encoder.spec.artefact)
            if resident and resident.held is encoder:
                self._by_name[key] = encoder

    def names(self) -> list[NameKey]:
        """Return the names that lead to a model."""
        with self._lock:
            return list(self._by_name)

    def follow(self, names: Mapping[NameKey, str], installed: Collection[str]) -> None:
        """Let each name lead to the model of its artefact, as far as that is kept.

        Other names are forgotten, and artefacts that are not installed any more let go.
        """
        with self._lock:
            found = {key: self._by_artefact.get(artefact) for key, artefact in names.items()}
            self._by_name = {key: one.held for key, one in found.items() if one and one.held}
            gone = [one for one in self._held() if one.artefact not in installed]
            freed = [self._let_go(one, "removed") for one in gone]
        del freed  # outside of the lock: to free a graph takes a while

    def set_keep_alive(self, encoder: Encoder, seconds: float) -> None:
        """Let a model stay for so long after its last use; negative: as long as there is room."""
        resident = self._by_artefact.get(encoder.spec.artefact)
        if resident is None or (resident.keep_alive_s == seconds and seconds):
            return
        resident.keep_alive_s = seconds
        self._alarm.wake()

    def unload(self, artefact: str) -> None:
        """Let a model go now, also the kept one; who uses it has it until they are done."""
        with self._lock:
            resident = self._by_artefact.get(artefact)
            freed = self._let_go(resident, "expired") if resident and resident.held else None
        del freed

    @contextmanager
    def room_for(self, name: str, counted_bytes: int) -> Iterator[None]:
        """Keep room for a model while it loads; what was used longest ago goes for it.

        Raises ModelError when it can never fit, OverloadedError when what it needs is in use.
        """
        with self._lock:
            freed = self._let_go_for(name, counted_bytes)
            self._reserved_bytes += counted_bytes
            self._reserved_models += 1
        del freed
        try:
            self._wait_for_room(name)
            yield
        finally:
            with self._lock:
                self._reserved_bytes -= counted_bytes
                self._reserved_models -= 1

    def loaded(self) -> list[LoadedModel]:
        """Describe what is in memory, the longest to stay first."""
        now, now_s = datetime.now(UTC), time.monotonic()
        with self._lock:
            found = [
                LoadedModel(
                    one.name,
                    one.artefact,
                    one.counted_bytes,
                    now + timedelta(seconds=due_s - now_s)
                    if (due_s := self._due_s(one)) is not None
                    else None,
                )
                for one in self._held()
            ]
        latest = datetime.max.replace(tzinfo=UTC)
        return sorted(found, key=lambda one: one.expires_at or latest, reverse=True)

    def close(self) -> None:
        """End the thread that watches the time."""
        self._alarm.close()

    def _held(self) -> list[Resident]:
        return [one for one in self._by_artefact.values() if one.held is not None]

    def _due_s(self, resident: Resident) -> float | None:
        """Return when a model's time is over; None for one that stays."""
        stays = resident.artefact == self.kept_artefact or resident.keep_alive_s < 0
        return None if stays or resident.held is None else resident.due_s(resident.held)

    def _look(self) -> float | None:
        """Let go of what is due; return when to look again."""
        now_s = time.monotonic()
        with self._lock:
            dues = [(one, self._due_s(one)) for one in self._held()]
            freed = [
                self._let_go(one, "expired")
                for one, due in dues
                if due is not None and due <= now_s
            ]
            waiting = [due for _, due in dues if due is not None and due > now_s]
            self._forget_dead()
        del freed  # their finalizers have it look again
        return min(waiting, default=None)

    def _let_go(self, resident: Resident, reason: Reason) -> Encoder | None:
        """Forget a model and return its Encoder, to be dropped outside of the lock."""
        encoder, resident.held = resident.held, None
        self._by_name = {key: one for key, one in self._by_name.items() if one is not encoder}
        self.unloads[reason] += 1
        logger.info("let go of model %s (%s)", resident.name, reason)
        return encoder

    def _forget_dead(self) -> None:
        dead = [key for key, one in self._by_artefact.items() if one.living() is None]
        for key in dead:
            del self._by_artefact[key]
        if dead:
            # The graph is freed after its Encoder, by whichever thread was the last to hold it.
            self._freed.tell()

    def _let_go_for(self, name: str, counted_bytes: int) -> list[Encoder | None]:
        others = [one for one in self._held() if one.artefact != self.kept_artefact]
        kept = [one for one in self._held() if one.artefact == self.kept_artefact]
        kept_bytes = sum(one.counted_bytes for one in kept)
        if counted_bytes + kept_bytes > self._budget_bytes:
            raise ModelError(_too_large(name, counted_bytes, kept, self._budget_bytes))
        free = self._budget_bytes - self._reserved_bytes - kept_bytes - counted_bytes
        free -= sum(one.counted_bytes for one in others)
        # What was let go takes its room until those who use it are done: others go before.
        going = sum(
            one.counted_bytes
            for one in self._by_artefact.values()
            if one.held is None and one.living() is not None
        )
        surplus = self._surplus(others)
        victims: list[Resident] = []
        for one in sorted(others, key=_wanted):
            if free >= going and len(victims) >= surplus:
                break
            free += one.counted_bytes
            victims.append(one)
        if free < 0 or len(victims) < surplus:
            raise OverloadedError(
                f"Model `{name}` has no room beside the models that are being loaded now. "
                f"Send the request again, or raise {_SETTING}{_or_count(surplus)}."
            )
        return [self._let_go(one, "memory") for one in victims]

    def _surplus(self, others: list[Resident]) -> int:
        """Return how many models are too many once another is loaded."""
        most = self._residency.max_models
        return max(0, len(others) + self._reserved_models + 1 - most) if most else 0

    def _wait_for_room(self, name: str) -> None:
        """Return when what was let go is gone, as far as its room is needed."""
        deaths: SimpleQueue[None] = SimpleQueue()
        with self._lock:
            for one in self._by_artefact.values():
                encoder = one.living() if one.held is None else None
                if encoder is not None:
                    weakref.finalize(encoder, deaths.put, None).atexit = False
                del encoder
        end_s = time.monotonic() + self._residency.going_s
        while self._living_bytes() + self._reserved_bytes > self._budget_bytes:
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                raise OverloadedError(
                    f"Model `{name}` has no room: the models in memory are in use. Send the "
                    f"request again later, or raise {_SETTING}."
                )
            with suppress(Empty):  # another load that is over gives no sign
                deaths.get(timeout=min(left_s, _LOOK_AGAIN_S))

    def _living_bytes(self) -> int:
        with self._lock:
            living = [one for one in self._by_artefact.values() if one.living() is not None]
            return sum(one.counted_bytes for one in living)


_SETTING = "`models_memory_bytes` (EMBEDSERVE_MODELS_MEMORY_BYTES)"
_COUNT_SETTING = "`max_loaded_models` (EMBEDSERVE_MAX_LOADED_MODELS)"


def _or_count(surplus: int) -> str:
    return f" or {_COUNT_SETTING}" if surplus else ""


def _wanted(resident: Resident) -> tuple[bool, float]:
    """Return what models are let go by, the least first: idle ones, and longest unused."""
    encoder = resident.held
    return (encoder.is_busy, encoder.used_s) if encoder else (False, 0.0)


def _too_large(name: str, counted_bytes: int, kept: list[Resident], budget_bytes: int) -> str:
    beside = "".join(
        f" beside the default model's {one.counted_bytes // MIB} MiB, which stay" for one in kept
    )
    return (
        f"Model `{name}` counts {counted_bytes // MIB} MiB; the models may take "
        f"{budget_bytes // MIB} MiB together{beside}. Raise {_SETTING} if the machine has more, or "
        "pull a smaller precision."
    )
