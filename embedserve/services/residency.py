"""What is known of a model in memory, and the rules for how long it stays. Nouns only."""

import time
import weakref
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from embedserve.engine.encoder import Encoder
from embedserve.services.canary import CanaryCheck

Reason = Literal["expired", "memory", "removed"]
REASONS: tuple[Reason, ...] = ("expired", "memory", "removed")
"""Why a model was let go: unused for too long, for the room of another, or not installed now."""

# A model that is in use past its time is looked at again after this long.
_LOOK_AGAIN_S = 1.0
# How long those who use a model may hold it once another needs its room.
_GOING_S = 10.0


@dataclass(frozen=True)
class Residency:
    """How long models stay in memory, and how much of it they may take."""

    keep_alive_s: float = 300
    """Seconds that a model stays unused; negative: as long as there is room."""
    memory_bytes: int = 0
    """For all models together; 0: half of what the process may use."""
    max_models: int = 0
    """Besides the one that stays always; 0: as many as have room."""
    going_s: float = _GOING_S
    """How long a load waits for those who hold what had to go for it."""


@dataclass(eq=False)
class Resident:
    """One model in memory."""

    name: str
    """The name by which it was loaded; others may share it."""
    artefact: str
    canary: CanaryCheck
    counted_bytes: int
    keep_alive_s: float
    living: "weakref.ref[Encoder]"
    held: Encoder | None
    """None: let go, but somebody may still use it."""

    def due_s(self, encoder: Encoder) -> float:
        """Return when its time is over, of `time.monotonic`."""
        if encoder.is_busy:
            return time.monotonic() + max(self.keep_alive_s, _LOOK_AGAIN_S)
        return encoder.used_s + self.keep_alive_s


@dataclass(frozen=True)
class LoadedModel:
    """What is told of a model in memory."""

    name: str
    artefact: str
    counted_bytes: int
    """What it counts against the budget."""
    expires_at: datetime | None
    """UTC; when it is let go unless it is used before. None: it stays."""
