"""The command: make indexes, measure searches, write the section of docs/performance.md."""

import argparse
import os
from datetime import UTC, datetime
from pathlib import Path

from embedserve.engine.cores import available_cores
from embedserve.engine.cpu import cpu_class
from embedserve.models.installed import resolve
from scripts.bench_report.machine import cpu_name
from scripts.search_report.figures import RESULTS, Report, Size, read_report
from scripts.search_report.home import VectorShare, made_home
from scripts.search_report.measure import measure
from scripts.search_report.page import put_section, section
from scripts.search_report.texts import questions

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
PAGE = ROOT / "docs" / "performance.md"
MODEL = "all-minilm"
CHUNKS = 100_000
EMBEDDED = 5000


def main() -> None:
    """Parse the arguments, make what is missing, measure, write."""
    told = _arguments()
    report = read_report(RESULTS) if told.again else _run(told)
    if told.make or told.print:
        print(section(report))
        return
    report.write(RESULTS)
    PAGE.write_text(put_section(PAGE.read_text(encoding="utf-8"), section(report)), "utf-8")


def _run(told: argparse.Namespace) -> Report:
    if not told.models or not told.home:
        raise SystemExit("Give `--models` and `--home`, or `--again`.")
    models, data = told.models.resolve() / "models", told.data.resolve()
    manifest = resolve(models, MODEL).manifest
    sizes = [_size(told, count, models, data) for count in told.chunks or [CHUNKS]]
    return Report(
        date=datetime.now(UTC).date().isoformat(),
        machine=f"{cpu_name()} ({cpu_class()}), {available_cores()} cores",
        model=f"{MODEL}, recipe {manifest.recipe} on {manifest.runtime.engine}",
        sizes=sizes,
    )


def _size(told: argparse.Namespace, count: int, models: Path, data: Path) -> Size:
    home = told.home.resolve() / str(count)
    share = VectorShare(told.embedded, told.vectors.resolve() if told.vectors else None)
    made = made_home(home, models, data, texts=count, share=share)
    if told.make:
        return Size(made.chunks, made.texts, made.documents, made.variants, made.embedded)
    before = os.getloadavg()[0]
    size = measure(home, made, questions(data), calls=told.calls, seconds=told.seconds)
    size.load = f"{before:.1f} and {os.getloadavg()[0]:.1f}"
    return size


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/search_bench", description=__doc__)
    parser.add_argument("--models", type=Path, help="a home that has all-minilm")
    parser.add_argument("--home", type=Path, help="folder for homes, which are kept")
    parser.add_argument("--data", type=Path, default=DATA, help="real documents (../shared/data)")
    parser.add_argument(
        "--chunks", type=int, action="append", help=f"distinct ones; repeatable ({CHUNKS})"
    )
    parser.add_argument("--embedded", type=int, default=EMBEDDED, help=f"by engine ({EMBEDDED})")
    parser.add_argument(
        "--vectors", type=Path, help="catalog with more of them, such as of an eval"
    )
    parser.add_argument("--calls", type=int, default=300, help="of each latency (300)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each rate (10)")
    parser.add_argument("--make", action="store_true", help="only make what is missing")
    parser.add_argument("--print", action="store_true", help="print the section, write nothing")
    parser.add_argument("--again", action="store_true", help="write from the last figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
