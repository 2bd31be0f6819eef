"""The scenarios by name: each starts what it needs and gives its figures."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path

from scripts.serving import USUAL_OPEN_FILES, Server, fresh_home, serve
from scripts.stress_report import flood, overload
from scripts.stress_report.drain import LONG_QUEUE, SHORT_QUEUE, drain
from scripts.stress_report.idle import idle
from scripts.stress_report.mixed import mixed
from scripts.stress_report.soak import soak
from scripts.stress_report.targets import ERRORS, Figures, Sizes
from scripts.stress_report.wedge import wedge

OnServer = Callable[[Server], Coroutine[None, None, Figures]]


@dataclass(frozen=True)
class Run:
    """Where the models are and how much is run."""

    models: Path
    sizes: Sizes

    def on_server(self, scenario: OnServer, settings: dict[str, str] | None = None) -> Figures:
        """Run a scenario on a server of its own."""
        with (
            fresh_home(self.models) as home,
            serve(home, settings, files_at_start=USUAL_OPEN_FILES) as server,
        ):
            figures = asyncio.run(scenario(server))
            server.stop()
            return {**figures, ERRORS: server.errors}


SCENARIOS: dict[str, Callable[[Run], Figures]] = {
    "flood": lambda run: run.on_server(
        lambda server: flood.flood(server, run.sizes.flood_requests), flood.SETTINGS
    ),
    "overload": lambda run: run.on_server(
        lambda server: overload.overload(server, run.sizes.overload_s), overload.SHORT_QUEUE
    ),
    "overload, default queue": lambda run: run.on_server(
        lambda server: overload.overload(server, run.sizes.overload_s)
    ),
    "wedge": lambda run: wedge(run.models, run.sizes.steady_s),
    "drain": lambda run: run.on_server(
        lambda server: drain(server, SHORT_QUEUE, run.sizes.steady_s)
    ),
    "drain, long queue": lambda run: run.on_server(
        lambda server: drain(server, LONG_QUEUE, run.sizes.steady_s)
    ),
    "idle": lambda run: run.on_server(lambda server: idle(server, run.sizes.idle_s)),
    "mixed": lambda run: run.on_server(lambda server: mixed(server, run.sizes.mixed_s)),
    "soak": lambda run: run.on_server(lambda server: soak(server, run.sizes)),
}

LONG = {"overload, default queue"}
"""Not in a short run: to fill two minutes of queue takes long, and so does it to empty it."""


def named(names: list[str], *, is_short: bool) -> list[str]:
    """Return the scenarios that are meant: `overload` is both of its kind, nothing is all."""
    families = {name.partition(",")[0] for name in SCENARIOS}
    if unknown := set(names) - families:
        raise SystemExit(
            f"No scenario: {', '.join(sorted(unknown))}. There are: {', '.join(sorted(families))}."
        )
    meant = [name for name in SCENARIOS if not names or name.partition(",")[0] in names]
    return [name for name in meant if not (is_short and name in LONG)]
