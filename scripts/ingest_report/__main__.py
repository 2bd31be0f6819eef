"""Measure ingestion: a folder from end to end against the engine alone, memory, and a second run.

The job is that of a real server, watched from outside. The engine runs alone afterwards.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.ingest_report.alone import Alone, alone
from scripts.ingest_report.served import Run, ingester
from scripts.ingest_report.tree import idle_share
from scripts.serving import fresh_home

MIB = 1024 * 1024


@dataclass(frozen=True)
class Round:
    """One turn: the job on an empty index, the job again, the engine alone."""

    first: Run
    second: Run
    alone: Alone
    load: float
    """Of each core in the minute before, by the whole machine."""
    is_apart: bool
    """Whether the job did without the engine, which ran on a part of the texts alone."""

    @property
    def share(self) -> float:
        """The job's tokens per second, of the engine's own."""
        return self.alone.seconds / self.first.seconds

    @property
    def engine_cpu_s(self) -> float:
        """What the engine alone takes for all that the job had embedded."""
        return self.alone.cpu_seconds * self.first.tokens / self.alone.tokens

    @property
    def cpu_share(self) -> float:
        """The engine's processor time, of all that the job and its children took.

        What the share of speed comes to where nothing else runs: the job keeps every core busy.
        """
        used_s = sum(self.first.peaks.cpu_s.values())
        return self.engine_cpu_s / (used_s + self.engine_cpu_s if self.is_apart else used_s)


def main() -> None:
    """Parse the arguments, measure, print."""
    told = _arguments()
    models, folder = told.home / "models", told.folder.resolve()
    rounds = [_told(_round(models, folder, told.apart)) for _ in range(told.rounds)]
    print(table(rounds))
    if told.json:
        told.json.write_text(json.dumps([_figures(one) for one in rounds], indent=1) + "\n")


def _round(models: Path, folder: Path, apart: int) -> Round:
    load = idle_share()
    with fresh_home(models) as home:
        with ingester(home, folder, is_apart=apart > 0) as one:
            first, second = one.ingest(), one.ingest()
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as process:
            by_itself = process.submit(alone, home, apart).result()
    return Round(first, second, by_itself, load, apart > 0)


def _told(one: Round) -> Round:
    """Tell of a round as soon as it is over."""
    share = f"{100 * one.cpu_share:.1f} % of its processor time is the engine's"
    words = f"{one.first.seconds:.1f} s, {share}, load {one.load:.1f}"
    print(words, file=sys.stderr, flush=True)
    return one


def table(rounds: list[Round]) -> str:
    """Return the figures as a table in Markdown: the median, and the range."""
    first = rounds[-1]
    rows = {
        "files, chunks, embedded": [
            f"{first.first.files}, {first.first.chunks}, {first.first.embedded}"
        ],
        "end to end": _spread([one.first.seconds for one in rounds], " s"),
        "tokens embedded": [str(first.first.tokens)],
        "tokens a second, engine alone": _spread(
            [one.alone.tokens / one.alone.seconds for one in rounds], ""
        ),
        "processor time of the engine alone, of the job's": _spread(
            [100 * one.cpu_share for one in rounds], " %"
        ),
        "second run": _spread([one.second.seconds for one in rounds], " s"),
        "processor time, second run": _spread(
            [sum(one.second.peaks.cpu_s.values()) for one in rounds], " s"
        ),
        "peak memory together": _spread([one.first.peaks.together / MIB for one in rounds], " MiB"),
    }
    if not first.is_apart:
        rows["tokens a second, job"] = _spread(
            [one.first.tokens / one.first.seconds for one in rounds], ""
        )
        rows["job, of the engine alone"] = _spread([100 * one.share for one in rounds], " %")
    for part in ("server", "extraction", "Chroma"):
        sizes = [one.first.peaks.parts.get(part, 0) / MIB for one in rounds]
        rows[f"peak memory, {part}"] = _spread(sizes, " MiB")
        rows[f"processor time, {part}"] = _spread(
            [one.first.peaks.cpu_s.get(part, 0.0) for one in rounds], " s"
        )
    rows["processor time, engine alone"] = _spread([one.engine_cpu_s for one in rounds], " s")
    lines = [f"| {name} | {cells[0]} |" for name, cells in rows.items()]
    return "\n".join(["| | median (range) |", "|---|---|", *lines])


def _spread(values: list[float], unit: str) -> list[str]:
    digits = 0 if min(values) >= 100 else 1
    low, middle, high = min(values), statistics.median(values), max(values)
    range_ = f" ({low:.{digits}f} to {high:.{digits}f})" if len(values) > 1 else ""
    return [f"{middle:.{digits}f}{unit}{range_}"]


def _figures(one: Round) -> dict[str, object]:
    return {**asdict(one), "share": one.share, "cpu_share": one.cpu_share}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/ingest_bench", description=__doc__)
    parser.add_argument("folder", type=Path, help="what to ingest")
    parser.add_argument("--home", type=Path, required=True, help="has the models, all-minilm too")
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument(
        "--apart",
        type=int,
        default=0,
        metavar="N",
        help="measure the engine on N of the texts, and the job with sums in its place: for a tree "
        "that takes hours",
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
