"""The command: make indexes, measure searches, write the section of docs/performance.md."""

import argparse
from pathlib import Path

from scripts.search_report.home import made_home

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
EMBEDDED = 5000


def main() -> None:
    """Parse the arguments, make what is missing, measure, write."""
    told = _arguments()
    for texts in told.chunks or [100_000]:
        home = told.home.resolve() / f"{texts}"
        models = told.models.resolve() / "models"
        made = made_home(home, models, told.data.resolve(), texts=texts, embedded=told.embedded)
        print(made)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/search_bench", description=__doc__)
    parser.add_argument("--models", type=Path, help="a home that has all-minilm")
    parser.add_argument("--home", type=Path, help="folder for homes, which are kept")
    parser.add_argument("--data", type=Path, default=DATA, help="real documents (../shared/data)")
    parser.add_argument(
        "--chunks", type=int, action="append", help="distinct ones in the index; repeatable"
    )
    parser.add_argument("--embedded", type=int, default=EMBEDDED, help=f"({EMBEDDED})")
    parser.add_argument("--make", action="store_true", help="only make what is missing")
    return parser.parse_args()


if __name__ == "__main__":
    main()
