"""How each kind of text is cut into sections. One table; a new kind is one row.

Imports nothing that starts threads, numpy above all: the extraction worker uses it, and its jail
binds the one thread that closes it.
"""

from collections.abc import Callable

from embedserve.ingest.blocks import Section
from embedserve.ingest.code import CodeLayout
from embedserve.ingest.lines import Layout, PlainLayout
from embedserve.ingest.markdown import MarkdownLayout
from embedserve.ingest.rst import RstLayout

LAYOUTS: dict[str, Callable[[], Layout]] = {
    "markdown": MarkdownLayout,
    "rst": RstLayout,
    "code": CodeLayout,
    "text": PlainLayout,
    "rows": PlainLayout,
}
"""`rows`: a line is a record, such as JSON Lines."""


def sections_of(text: str, kind: str) -> list[Section]:
    """Return the sections of a whole text in order; together they cover all but whitespace."""
    return LAYOUTS[kind]().read(text, is_last=True)
