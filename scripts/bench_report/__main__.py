"""The command: measure, and write the page."""

import argparse
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from embedserve.engine.backend import BACKENDS, describe
from embedserve.engine.cores import available_cores
from embedserve.engine.cpu import cpu_class
from embedserve.models.installed import resolve
from embedserve.services.models import encoder_spec
from scripts.bench_report.figures import Report, read_report
from scripts.bench_report.machine import Watch, cpu_name
from scripts.bench_report.measure import Rounds, Subject, measure, tell
from scripts.bench_report.page import page
from scripts.bench_report.peers import read_peers

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"
CACHE = ROOT / ".cache" / "bench"
LAST = CACHE / "last.json"
MODEL = "all-minilm"
# all-minilm's network; the graph itself does not say it.
LAYERS, WIDTH = 6, 384
FULL = Rounds(5, 2.0, calls=500, hot_calls=2000, new_texts=1000)
QUICK = Rounds(1, 1.0, calls=100, hot_calls=100, new_texts=300)


def main() -> None:
    """Parse the arguments, measure, write."""
    told = _arguments()
    rounds = QUICK if told.quick else replace(FULL, count=told.rounds)
    report = read_report(LAST) if told.again else run(told, rounds)
    if told.peers:
        report = replace(report, peers=[read_peers(path) for path in told.peers])
    if not told.quick:
        report.write(LAST)
    if output := told.output or (None if told.quick else PAGE):
        output.write_text(page(report), encoding="utf-8")
    else:
        print(page(report))


def run(told: argparse.Namespace, rounds: Rounds) -> Report:
    """Measure everything."""
    CACHE.mkdir(parents=True, exist_ok=True)
    folder, words = _folder(told.data)
    before = os.getloadavg()[0]
    models = _pulled(told.home or CACHE / "home")
    installed = resolve(models, MODEL)
    subject = Subject(models, MODEL, encoder_spec(installed).tokenizer_path, folder)
    watch = Watch()
    sheet = measure(subject, rounds)
    others = watch.others()
    manifest = installed.manifest
    return Report(
        date=datetime.now(UTC).date().isoformat(),
        cpu=f"{cpu_name()} ({cpu_class()})",
        engines=", ".join(describe(name).version for name in BACKENDS.names()),
        model=f"{MODEL}, recipe {manifest.recipe} on {manifest.runtime.engine}",
        cores=available_cores(),
        load=f"{before:.1f} and {os.getloadavg()[0]:.1f}",
        others=others,
        rounds=rounds.count,
        seconds=rounds.seconds,
        calls=rounds.calls,
        command=_command(told),
        folder=words,
        layers=LAYERS,
        width=WIDTH,
        values=sheet.values,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder that has docs-rust-book in it")
    parser.add_argument("--home", type=Path, help=f"has {MODEL}, or gets it (.cache/bench/home)")
    parser.add_argument("--rounds", type=int, default=FULL.count, help=f"({FULL.count})")
    parser.add_argument("--quick", action="store_true", help="one short round, printed")
    parser.add_argument("--again", action="store_true", help="write from the last figures")
    parser.add_argument("--peers", type=Path, action="append", help="JSON of others; repeatable")
    parser.add_argument("--output", type=Path, help="write the page there")
    return parser.parse_args()


def _command(told: argparse.Namespace) -> str:
    """Return what to type to measure the same, without the paths of this machine."""
    rounds = [] if told.rounds == FULL.count else [f"--rounds {told.rounds}"]
    rounds = ["--quick"] if told.quick else rounds
    data = ["--data FOLDER"] if told.data else []
    return " ".join(["scripts/bench", *data, *rounds])


def _folder(data: Path | None) -> tuple[Path, str]:
    """Return what is ingested, and how the page calls it."""
    if data is None:
        return ROOT / "embedserve", "embedserve"
    folder = data / "docs-rust-book" / "files"
    if not folder.is_dir():
        raise SystemExit(f"`{folder}` is not there; give the folder above it with `--data`.")
    return folder, "docs-rust-book/files"


def _pulled(home: Path) -> Path:
    """Pull the model into `home` unless it is there; return its models folder."""
    tell(f"looking for {MODEL} in {home}")
    command = [sys.executable, "-m", "embedserve", "pull", MODEL, "--home", str(home)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return home / "models"


if __name__ == "__main__":
    main()
