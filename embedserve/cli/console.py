"""Where and how the commands print: results to standard output, everything else to error."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import orjson
import typer
from rich.cells import cell_len
from rich.console import Console

from embedserve.errors import InvalidRequestError

# What is printed comes from documents and paths: `[bold]` and `:warning:` in it are just that.
output = Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
errors = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def print_json(value: Any) -> None:  # noqa: ANN401  any JSON value
    """Print a value as JSON, byte for byte, also to a terminal."""
    sys.stdout.flush()
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.buffer.flush()


def print_result(value: Any, sentence: str, *, as_json: bool) -> None:  # noqa: ANN401  the same
    """Print what a command did: one sentence for people, or JSON."""
    if as_json:
        print_json(value)
    else:
        output.print(sentence)


def print_table(rows: Sequence[Sequence[str]], *header: str, to: Console = output) -> None:
    """Print one line a row, columns aligned; nothing is cut or folded: ids and paths get pasted."""
    # A line break inside a cell (a file's name may hold one) would tear the row apart.
    lines = [[" ".join(cell.splitlines()) for cell in row] for row in rows]
    lines = [list(header), *lines] if header else lines
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = (
            cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True)
        )
        to.print("  ".join(padded).rstrip())


def standard_input() -> str:
    """Return all of standard input; raise InvalidRequestError when it is no text."""
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"Standard input is not valid UTF-8 (byte {error.start}). Convert it with `iconv`."
        ) from error


def size(count: int) -> str:
    """Say a number of bytes as people do: `34.1 MB`."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
