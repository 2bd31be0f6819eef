"""What a pull prints: its progress, and what was installed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from embedserve.cli.client import Json
from embedserve.cli.console import errors, size

if TYPE_CHECKING:  # commands about models print too, and load none of what pulls them
    from embedserve.services.models import Progress


@contextmanager
def following() -> "Iterator[Progress]":
    """Show progress on standard error: a bar on a terminal, a line for each stage elsewhere."""
    if not errors.is_terminal:
        yield _Lines().tell
        return
    columns = (
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[of]}"),
    )
    with Bars(*columns, console=errors, transient=True) as bars:
        yield _Bar(bars).tell


class _Lines:
    """A line when a stage begins, and one when a stage that is counted has ended."""

    def __init__(self) -> None:
        self._stage = ""

    def tell(self, stage: str, done: int | None, total: int | None) -> None:
        if stage != self._stage:
            self._stage = stage
            errors.print(f"{stage} ({size(total)})" if total else stage)
        elif total and done == total:
            errors.print(f"{stage}: done")


class _Bar:
    """A line for each stage above one bar for the file on its way."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._stage = ""
        self._task = bars.add_task("", visible=False, of="")

    def tell(self, stage: str, done: int | None, total: int | None) -> None:
        if stage != self._stage:
            self._stage = stage
            errors.print(stage)
            self._bars.reset(self._task, visible=False, of=stage)
        if total:
            self._bars.update(self._task, completed=done or 0, total=total, visible=True)


def installed_sentence(facts: Json) -> str:
    """Say in a few words what was installed, how good it is and why it was chosen."""
    fidelity, performance = facts["fidelity"], facts["performance"]
    sentence = (
        f"{facts['name']} is installed: {facts['recipe']} on {performance['engine_version']}, "
        f"{size(facts['size_bytes'])}, cosine to fp32 {fidelity['cosine_mean']:.4f} on average "
        f"(lowest {fidelity['cosine_min']:.4f}), top-10 overlap {fidelity['top10_overlap']:.3f}, "
        f"{performance['tokens_per_s_mixed']:,.0f} tokens/s; {why_chosen(facts)}"
    )
    if below := facts["below_gate"]:
        sentence += f". Below its gate, and installed as asked: {'; '.join(below)}"
    return sentence


def why_chosen(facts: Json) -> str:
    """Say why this candidate was chosen among those that were tried."""
    tried = facts["candidates"]
    passed = sum(one["tokens_per_s_mixed"] is not None for one in tried)
    if any(one["verdict"].startswith("installed, below") for one in tried):
        return f"nothing that was tried passed ({len(tried)} tried)"
    if passed > 1:
        return f"the fastest of {passed} that passed ({len(tried)} tried)"
    if len(tried) > 1:
        return f"the only one of {len(tried)} tried that passed"
    return "nothing else was tried"
