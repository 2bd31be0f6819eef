"""What is asked of the server, in one place, and how large the scenarios are."""

from dataclasses import dataclass

Figures = dict[str, float]
"""What a scenario measured, by the words that stand in the table; units stand in them."""


@dataclass(frozen=True)
class Target:
    """The most that a figure may be, or the least."""

    limit: float
    short: float | None = None
    """The limit of a short run, where there is too little to count, or the machine is shared."""
    is_least: bool = False

    def limit_of(self, *, is_short: bool) -> float:
        """Return the limit that counts for a run."""
        return self.limit if self.short is None or not is_short else self.short

    def is_met(self, value: float, *, is_short: bool) -> bool:
        """Tell whether a figure is within the limit."""
        limit = self.limit_of(is_short=is_short)
        return value >= limit if self.is_least else value <= limit


NONE = Target(0)
ERRORS = "errors in the server's log"

_OVERLOAD = {
    # Else it was no overload: the sender shares the machine with the server.
    "offered, times capacity": Target(8, short=4, is_least=True),
    "neither answered nor refused": NONE,
    "answers of another kind": NONE,
    "answered": Target(1, is_least=True),
    "refused": Target(1, is_least=True),
    # Half of them, where other programs may have the cores for a while.
    "refusal p50, ms": Target(50, short=300),
    "refusal p99, ms": Target(100, short=3000),
    "memory, MB more at the peak": Target(250),
    "back to normal, s": Target(1, short=2),
}

TARGETS: dict[str, dict[str, Target]] = {
    "flood": {
        "/api/embed: not answered with 200": NONE,
        "/api/embed: vectors that differ from the batch's": NONE,
        "/v1/embeddings: not answered with 200": NONE,
        "/v1/embeddings: vectors that differ from the batch's": NONE,
    },
    "overload": _OVERLOAD,
    "overload, default queue": {
        **_OVERLOAD,
        # Two minutes of work may wait, with their connections and token ids.
        "memory, MB more at the peak": Target(600),
    },
    "wedge": {
        f"{what}: {name}": target
        for what in ("error", "exit", "hang")
        for name, target in {
            "poison told by its place": Target(1, is_least=True),
            "other texts that failed": NONE,
            "other vectors that differ": NONE,
            "speed back after, s": Target(2, short=10),
        }.items()
    },
    "drain": {
        "under way at the signal": Target(1, is_least=True),
        "neither answered nor refused": NONE,
        "answers of another kind": NONE,
        "answered": Target(1, is_least=True),
        "ended after, s": Target(35),
        "exit status": NONE,
        "processes left": NONE,
    },
    "soak": {
        "neither answered nor refused": NONE,
        "texts/s": Target(1, is_least=True),
        "memory, % more at the end": Target(5, short=30),
    },
    "idle": {"CPU, % of a core": Target(1, short=3)},
    "mixed": {
        "not answered with 200": NONE,
        "query p99 beside bulk, ms": Target(100, short=1000),
        "bulk speed with queries, share": Target(0.85, short=0.4, is_least=True),
    },
}
TARGETS["drain, long queue"] = TARGETS["drain"]
for _scenario, _targets in TARGETS.items():
    if _scenario != "wedge":  # which has no server
        TARGETS[_scenario] = {**_targets, ERRORS: NONE}
# The web server says that time is up.
TARGETS["drain, long queue"][ERRORS] = Target(1)


@dataclass(frozen=True)
class Sizes:
    """How much of each scenario is run."""

    flood_requests: int
    overload_s: float
    steady_s: float
    """Of load before and after something is broken, in `wedge` and `drain`."""
    soak_s: float
    soak_warm_s: float
    """Of that, before memory is compared."""
    soak_every_s: float
    idle_s: float
    mixed_s: float
    """Of each of four parts."""


FULL = Sizes(
    flood_requests=5000,
    overload_s=30,
    steady_s=3,
    soak_s=3600,
    soak_warm_s=300,
    soak_every_s=5,
    idle_s=60,
    mixed_s=20,
)
SHORT = Sizes(
    flood_requests=300,
    overload_s=2,
    steady_s=0.6,
    soak_s=5,
    soak_warm_s=2,
    soak_every_s=0.25,
    idle_s=5,
    mixed_s=3,
)
