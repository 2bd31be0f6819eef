"""The command: run what was asked for, print the figures beside their targets, and judge."""

import argparse
import os
import platform
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from embedserve.engine.cores import available_cores
from scripts.stress_report.report import Judged, as_json, judge, missed, table
from scripts.stress_report.scenarios import SCENARIOS, Run, named
from scripts.stress_report.targets import FULL, SHORT, Sizes


def main() -> None:
    """Parse the arguments, run, print; the exit status is 1 when a target was missed."""
    told = _arguments()
    run = Run(told.models, _sizes(told))
    rows: list[Judged] = []
    for name in named(told.scenarios, is_short=told.short):
        print(f"{name}...", file=sys.stderr, flush=True)
        rows += judge(name, SCENARIOS[name](run), is_short=told.short)
    facts = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "cores": available_cores(),
        "load_at_the_end": round(os.getloadavg()[0], 1),
        "is_short": told.short,
        "sizes": vars(run.sizes),
    }
    if told.json:
        told.json.write_text(as_json(rows, facts), encoding="utf-8")
    size = "short run, " if told.short else ""
    print(f"{size}{facts['cores']} cores, load {facts['load_at_the_end']} at the end\n")
    print(table(rows))
    if failures := missed(rows):
        print("\nMissed:", *failures, sep="\n  ", file=sys.stderr)
        raise SystemExit(1)


def _sizes(told: argparse.Namespace) -> Sizes:
    sizes: Sizes = SHORT if told.short else FULL
    if told.seconds:
        sizes = replace(sizes, overload_s=told.seconds, idle_s=told.seconds, mixed_s=told.seconds)
    if told.minutes:
        soak_s = told.minutes * 60
        sizes = replace(sizes, soak_s=soak_s, soak_warm_s=min(sizes.soak_warm_s, soak_s / 3))
    return replace(sizes, flood_requests=told.requests or sizes.flood_requests)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/stress", description=__doc__)
    parser.add_argument(
        "scenarios",
        nargs="*",
        metavar="SCENARIO",
        help=f"{', '.join(dict.fromkeys(name.partition(',')[0] for name in SCENARIOS))}; or all",
    )
    parser.add_argument("--models", type=Path, required=True, help="models folder of a home")
    parser.add_argument("--short", action="store_true", help="small sizes, looser targets")
    parser.add_argument("--seconds", type=float, help="of overload, idle, and each part of mixed")
    parser.add_argument("--minutes", type=float, help="of soak (60)")
    parser.add_argument("--requests", type=int, help="of flood (5000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
