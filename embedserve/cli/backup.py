"""`embedserve backup`: a copy of the home, whether or not a server runs on it."""

from pathlib import Path
from typing import Annotated

import typer

from embedserve.bootstrap.sources import read_all
from embedserve.cli.client import Home
from embedserve.cli.console import AsJson, errors, print_result, size
from embedserve.services.backup import back_up


def backup(
    target: Annotated[
        Path, typer.Argument(help="New folder, or a file that ends in .tar, .tar.gz or .tgz.")
    ],
    home: Home = None,
    as_json: AsJson = False,
) -> None:
    """Copy catalog, models and definitions, also while a server runs; Chroma is derived."""
    settings = read_all({"home": home, "log_level": "warning"}).settings
    made = back_up(settings.home, target, definitions=settings.definitions)
    result = {
        "target": str(made.target),
        "files": made.files,
        "bytes": made.size_bytes,
        "models": list(made.models),
        "left_out": ["chroma"],
    }
    print_result(result, f"backup at {made.target}: {size(made.size_bytes)}", as_json=as_json)
    if not as_json:
        errors.print("The vector index is left out: it is filled again from the catalog.")
