"""The command: measure what was asked for and write the page."""

import argparse
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from embedserve.engine.backend import BACKENDS, describe
from embedserve.engine.cores import available_cores
from embedserve.engine.cpu import cpu_class
from embedserve.models.names import parse_name
from embedserve.models.pull import locate
from embedserve.services.memory import resident_bytes
from embedserve.services.workshop import Workshop
from scripts.bench_report.machine import cpu_name
from scripts.quantization_report import base_model, measure, server
from scripts.quantization_report.artefacts import export_model
from scripts.quantization_report.figures import Report, read_report, recipes_on_cpu
from scripts.quantization_report.measure import Rounds, tell
from scripts.quantization_report.page import page
from scripts.quantization_report.retrieval import read_scifact

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "quantization.md"
CACHE = ROOT / ".cache" / "quantization"
LAST = CACHE / "last.json"
MODEL = "all-minilm"
FULL, QUICK, BASE = Rounds(7, 0.4, times=4), Rounds(1, 0.1), Rounds(5, 0.4)


def main() -> None:
    """Parse the arguments, measure, write."""
    told = _arguments()
    is_whole = not (told.quick or told.only)
    if told.again:
        report = read_report(LAST)
    else:
        recipes = told.only.split(",") if told.only else recipes_on_cpu()
        if unknown := set(recipes) - set(recipes_on_cpu()):
            raise SystemExit(f"Not a recipe for CPUs: {', '.join(sorted(unknown))}")
        report = run(recipes, told.data / "scifact", is_quick=told.quick)
        if is_whole:
            report.write(LAST)
    if output := told.output or (PAGE if is_whole else None):
        output.write_text(page(report), encoding="utf-8")
    else:
        print(page(report))


def run(recipes: list[str], scifact: Path, *, is_quick: bool) -> Report:
    """Measure the recipes: all-minilm and, unless quick, retrieval, a larger model, the server."""
    CACHE.mkdir(parents=True, exist_ok=True)
    rounds = QUICK if is_quick else FULL
    before = os.getloadavg()[0]
    with ExitStack() as stack:
        workshop = Workshop()
        stack.callback(workshop.close)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        checkpoint = locate(parse_name(MODEL), None, is_onnx_preferred=False).folder
        empty_bytes = _empty_bytes()
        tell(f"exporting {MODEL}")
        (scratch / "small").mkdir()
        model = export_model(checkpoint, scratch / "small", workshop)
        retrieval = None if is_quick else read_scifact(scifact)
        judge = measure.judge(model, retrieval, CACHE / "vectors", workshop)
        measured = measure.measure_all(model, recipes, workshop, rounds, judge)
        base = []
        if not is_quick:
            tell("making and exporting a model of BERT-base's size")
            (scratch / "base").mkdir()
            base_model.make_in_process(checkpoint, scratch / "checkpoint")
            larger = export_model(scratch / "checkpoint", scratch / "base", workshop)
            base = measure.measure_base(larger, recipes, workshop, BASE)
        server_bytes = None if is_quick else server.resident_bytes_of_server(MODEL, CACHE / "home")
    return Report(
        date=datetime.now(UTC).date().isoformat(),
        cpu=f"{cpu_name()} ({cpu_class()})",
        engines=", ".join(describe(name).version for name in BACKENDS.names()),
        cores=available_cores(),
        load=f"{before:.1f} and {os.getloadavg()[0]:.1f}",
        rounds=rounds.count,
        seconds=rounds.seconds,
        empty_bytes=empty_bytes,
        ways=measured.ways,
        rivals=measured.rivals,
        base=base,
        server_bytes=server_bytes,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/quantization", description=__doc__)
    data = ROOT.parent / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data, help="folder that has scifact in it")
    parser.add_argument("--quick", action="store_true", help="one short round, all-minilm alone")
    parser.add_argument("--only", metavar="RECIPES", help="some recipes, separated by commas")
    parser.add_argument("--again", action="store_true", help="write from the last figures")
    parser.add_argument("--output", type=Path, help="write the page there")
    return parser.parse_args()


def _empty_bytes() -> int:
    """Return what a measuring process holds before it loads an engine."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(resident_bytes).result()


if __name__ == "__main__":
    main()
