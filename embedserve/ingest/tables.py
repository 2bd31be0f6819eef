"""Rows of CSV and TSV as those of a Markdown table, in order. Runs in the worker only.

The form is that of the extraction library, which reads what is short enough to be read whole; only
the number of columns is that of the first row, and not of the longest.
"""

import csv
from collections.abc import Iterable, Iterator

from embedserve.ingest.kinds import FileKind
from embedserve.ingest.readers import refusal

MAX_CELL_CHARS = 1_000_000
MAX_LINE_CHARS = 4_000_000
ROWS_AT_ONCE = 10_000
CHARS_AT_ONCE = 1_000_000
_DELIMITERS = ",;\t|"


def table(pieces: Iterable[str], kind: FileKind) -> Iterator[str]:
    """Yield a table for the clean text of a file; raise ExtractionError when that is none."""
    lines = _lines(pieces)
    first = next(lines, "")
    rows = csv.reader(_with_first(first, lines), delimiter=_delimiter(first, kind))
    former_limit = csv.field_size_limit(MAX_CELL_CHARS)
    try:
        yield from _joined(_formatted(rows))
    except csv.Error as error:
        raise refusal(
            "corrupt",
            f"It cannot be read as a table: line {rows.line_num}: {error}.",
            "A quotation mark may be missing; or give it the ending of a text.",
        ) from error
    finally:
        csv.field_size_limit(former_limit)


def _with_first(first: str, lines: Iterator[str]) -> Iterator[str]:
    yield first
    yield from lines


def _lines(pieces: Iterable[str]) -> Iterator[str]:
    rest = ""
    for piece in pieces:
        *whole, rest = (rest + piece).split("\n")
        for line in whole:
            yield f"{line}\n"
        if len(rest) > MAX_LINE_CHARS:
            raise refusal(
                "corrupt",
                f"It cannot be read as a table: a line has over {MAX_LINE_CHARS} characters.",
                "Give it the ending of a text.",
            )
    yield rest


def _delimiter(first: str, kind: FileKind) -> str:
    if kind.mime == "text/tab-separated-values":
        return "\t"
    bare = "".join(first.split('"')[::2])  # outside of quotation marks
    return max(_DELIMITERS, key=bare.count)


def _formatted(rows: Iterable[list[str]]) -> Iterator[str]:
    """Yield the lines of the table; an empty text for a row without words."""
    columns = 0
    for row in rows:
        if not any(row):
            yield ""
            continue
        cells = [cell.replace("\n", " ").replace("|", "\\|") for cell in row]
        line = f"| {' | '.join([*cells, *[''] * (columns - len(cells))])} |\n"
        if not columns:
            columns = len(cells)
            line += f"|{' --- |' * columns}\n"
        yield line


def _joined(lines: Iterable[str]) -> Iterator[str]:
    """Yield many rows at once, and soon enough to show that there is progress."""
    some: list[str] = []
    size = 0
    for line in lines:
        some.append(line)
        size += len(line)
        if len(some) >= ROWS_AT_ONCE or size >= CHARS_AT_ONCE:
            yield "".join(some)
            some, size = [], 0
    yield "".join(some)
