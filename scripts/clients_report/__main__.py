"""The command: make the environments, serve, run every client, write the table."""

import argparse
import shutil
from datetime import UTC, datetime
from pathlib import Path

from embedserve import __version__
from scripts.clients_report.families import FAMILIES, Family, prepare, run_checks
from scripts.clients_report.page import (
    Report,
    Row,
    put_section,
    read_report,
    section,
    write_report,
)
from scripts.serving import copied_home, serve

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "clients.md"
KEPT = Path(__file__).parent / "results.json"
MODEL = "all-minilm"


def main() -> None:
    """Parse the arguments and run; the exit status is 1 when a check failed."""
    told = _arguments()
    if told.again:
        _write_page(read_report(KEPT))
        return
    families = [family for family in FAMILIES if family.name in (told.families or _all())]
    report = _run(families, told)
    print(section(report))
    if not told.families:
        write_report(report, KEPT)
        _write_page(report)
    if any(row.problem for row in report.rows):
        raise SystemExit(1)


def _all() -> list[str]:
    return [family.name for family in FAMILIES]


def _run(families: list[Family], told: argparse.Namespace) -> Report:
    left_out = [] if told.reranker else ["Cohere's client: no reranker was named (`--reranker`)."]
    ready = []
    for family in families:
        if family.kind == "node" and shutil.which("npm") is None:
            left_out.append("the clients in JavaScript: this machine has no npm.")
        else:
            ready.append((family, prepare(family, told.cache.absolute())))
    rows: list[Row] = []
    with copied_home(told.models) as home, serve(home) as server:
        url = f"http://127.0.0.1:{server.port}"
        for family, folder in ready:
            rows += [Row(**row) for row in run_checks(family, folder, url, told.reranker)]
    return Report(datetime.now(UTC).date().isoformat(), __version__, left_out, rows)


def _write_page(report: Report) -> None:
    page = put_section(PAGE.read_text(encoding="utf-8"), section(report))
    PAGE.write_text(page, encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/clients", description=__doc__)
    parser.add_argument(
        "families", nargs="*", metavar="FAMILY", help=f"{', '.join(_all())}; or all, and the page"
    )
    parser.add_argument("--models", type=Path, required=True, help="models folder of a home")
    parser.add_argument("--cache", type=Path, required=True, help="where environments are kept")
    parser.add_argument("--reranker", default="", help="installed reranker, for Cohere's client")
    parser.add_argument("--again", action="store_true", help="the page from the last results")
    told = parser.parse_args()
    if unknown := set(told.families) - set(_all()):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return told


if __name__ == "__main__":
    main()
