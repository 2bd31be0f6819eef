"""How each kind of text is cut into sections. One table; a new kind is one row.

Imports nothing that starts threads, numpy above all: the extraction worker uses it, and its jail
binds the one thread that closes it.
"""

from collections.abc import Callable

from embedserve.ingest.blocks import Section, markdown_sections
from embedserve.ingest.outline import definitions
from embedserve.ingest.rst import rst_sections


def _plain_sections(text: str) -> list[Section]:
    return [Section(0, 0, len(text))]


def _code_sections(text: str) -> list[Section]:
    return [Section(0, 0, len(text), outline=tuple(definitions(text)))]


LAYOUTS: dict[str, Callable[[str], list[Section]]] = {
    "markdown": markdown_sections,
    "rst": rst_sections,
    "code": _code_sections,
    "text": _plain_sections,
    "rows": _plain_sections,
}
"""`rows`: a line is a record, such as JSON Lines."""
