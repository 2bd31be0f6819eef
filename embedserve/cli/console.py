"""Where and how the commands print: results to standard output, everything else to error."""

from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

output = Console(soft_wrap=True)
errors = Console(stderr=True, soft_wrap=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def print_json(value: Any) -> None:  # noqa: ANN401  any JSON value
    """Print a value as JSON, plain, also to a terminal."""
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    output.print(text, markup=False, highlight=False, soft_wrap=True)


def plain_table(*columns: str) -> Table:
    """Return a table that folds long cells and never cuts them: ids and paths get pasted."""
    table = Table(box=None, show_header=bool(columns), pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in ("ID", "NAME"))
    return table


def size(count: int) -> str:
    """Say a number of bytes as people do: `34.1 MB`."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
