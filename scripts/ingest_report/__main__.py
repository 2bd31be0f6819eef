"""Measure ingestion: a folder from end to end against the engine alone, memory, and a second run.

The machine may be shared: job and engine take turns in one process, and their ratio is what counts.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.ingest_report import resident
from scripts.ingest_report.tree import Peaks, idle_share, watched
from scripts.serving import fresh_home

MIB = 1024 * 1024


@dataclass(frozen=True)
class Round:
    """One turn: the job on an empty index, the engine alone, the job again."""

    first: resident.Run
    alone: resident.Alone
    second: resident.Run
    peaks: Peaks
    load: float
    """Of each core in the minute before, by the whole machine."""

    @property
    def share(self) -> float:
        """The job's tokens per second, of the engine's own."""
        return self.alone.seconds / self.first.seconds

    @property
    def cpu_share(self) -> float:
        """The engine's processor time, of all that the job and its children took.

        What the share of speed comes to where nothing else runs: the job keeps every core busy.
        """
        return self.alone.cpu_seconds / sum(self.peaks.cpu_s.values())


def main() -> None:
    """Parse the arguments, measure, print."""
    told = _arguments()
    rounds = measure(told.home / "models", told.folder.resolve(), told.rounds)
    print(table(rounds))
    if told.json:
        told.json.write_text(json.dumps([_figures(one) for one in rounds], indent=1) + "\n")


def measure(models: Path, folder: Path, rounds: int) -> list[Round]:
    """Take turns in one process that has the house."""
    context = multiprocessing.get_context("spawn")
    with fresh_home(models) as home, ProcessPoolExecutor(1, mp_context=context) as process:
        pid = process.submit(resident.begin, home, folder).result()
        try:
            return [_told(_round(process, pid)) for _ in range(rounds)]
        finally:
            process.submit(resident.end).result()


def _round(process: ProcessPoolExecutor, pid: int) -> Round:
    load = idle_share()
    process.submit(resident.empty).result()
    with watched(pid) as peaks:
        first = process.submit(resident.ingest).result()
    second = process.submit(resident.ingest).result()
    alone = process.submit(resident.alone).result()
    return Round(first, alone, second, peaks, load)


def _told(one: Round) -> Round:
    """Tell of a round as soon as it is over."""
    words = f"{one.first.seconds:.1f} s, {100 * one.share:.1f} % of the engine, load {one.load:.1f}"
    print(words, file=sys.stderr, flush=True)
    return one


def table(rounds: list[Round]) -> str:
    """Return the figures as a table in Markdown: the median, and the range."""
    first = rounds[-1]
    rows = {
        "files, chunks, of which distinct, embedded": [
            f"{first.first.files}, {first.first.chunks}, {first.alone.texts}, "
            f"{first.first.embedded}"
        ],
        "end to end": _spread([one.first.seconds for one in rounds], " s"),
        "tokens embedded": [str(first.alone.tokens)],
        "tokens a second, job": _spread([_speed(one, one.first.seconds) for one in rounds], ""),
        "tokens a second, engine alone": _spread(
            [_speed(one, one.alone.seconds) for one in rounds], ""
        ),
        "job, of the engine alone": _spread([100 * one.share for one in rounds], " %"),
        "processor time of the engine alone, of the job's": _spread(
            [100 * one.cpu_share for one in rounds], " %"
        ),
        "second run": _spread([one.second.seconds for one in rounds], " s"),
        "peak memory together": _spread([one.peaks.together / MIB for one in rounds], " MiB"),
    }
    for part in ("server", "extraction", "Chroma"):
        sizes = [one.peaks.parts.get(part, 0) / MIB for one in rounds]
        rows[f"peak memory, {part}"] = _spread(sizes, " MiB")
        rows[f"processor time, {part}"] = _spread(
            [one.peaks.cpu_s.get(part, 0.0) for one in rounds], " s"
        )
    rows["processor time, engine alone"] = _spread([one.alone.cpu_seconds for one in rounds], " s")
    lines = [f"| {name} | {cells[0]} |" for name, cells in rows.items()]
    return "\n".join(["| | median (range) |", "|---|---|", *lines])


def _speed(one: Round, seconds: float) -> float:
    return one.alone.tokens / seconds


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
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
