"""What was filled into the form of a PDF: names and values of its fields, by page.

The extraction library reads what is painted on a page, and values of fields are not. The one place
of pypdf. Runs in the jailed worker only.
"""

import io
import logging
from collections.abc import Iterator
from typing import Any

import pypdf
from pypdf.generic import IndirectObject

_FORM, _PACKED = b"/AcroForm", b"/ObjStm"
# [ISO 32000-1] 12.7.4.3: what is typed is not to be shown.
_PASSWORD = 1 << 13
_INHERITED = ("/V", "/FT", "/Ff")
MAX_DEPTH = 32
"""Fields inside of each other."""
_SAMPLE = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R/AcroForm<<>>>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R>>endobj\nxref\n0 4\n0000000000 65535 f \n"
    b"0000000009 00000 n \n"
    b"0000000065 00000 n \n"
    b"0000000114 00000 n \n"
    b"trailer<</Root 1 0 R/Size 4>>\nstartxref\n155\n%%EOF\n"
)
_FAILED = "What was filled into its form could not be read."


class FormError(Exception):
    """A form that is there cannot be read."""


def preload() -> None:
    """Load what the library otherwise loads at the first PDF, when no file can be opened.

    And keep it from telling on standard error what it finds odd in foreign files.
    """
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    filled_fields(_SAMPLE)


def filled_fields(content: bytes) -> dict[int, list[str]]:
    """Map page, from 1, to lines `name: value`; raise FormError for a form that is damaged."""
    is_said = _FORM in content
    if not is_said and _PACKED not in content:
        return {}  # the catalog that would name a form lies open in such a file
    try:
        reader = pypdf.PdfReader(io.BytesIO(content))
        if "/AcroForm" not in reader.root_object:
            return {}
        found = {number: list(_lines(page)) for number, page in enumerate(reader.pages, start=1)}
    except Exception as error:  # a foreign file breaks a parser in any way; the page is read
        if is_said:
            raise FormError(_FAILED) from error
        return {}
    return {number: lines for number, lines in found.items() if lines}


def _lines(page: pypdf.PageObject) -> Iterator[str]:
    """Give each field of a page that has a value, once."""
    seen: set[str] = set()
    for annotation in _resolved(page.get("/Annots")) or ():
        widget = _resolved(annotation)
        if widget is None or widget.get("/Subtype") != "/Widget":
            continue
        field = _field(widget)
        value = _value(field)
        line = f"{field['name']}: {value}" if field["name"] else value
        if value and line not in seen:
            seen.add(line)
            yield line


def _field(widget: Any) -> dict[str, Any]:  # noqa: ANN401  a dictionary of the file's own
    """Return what a widget says of its field, and what it has from the fields around it."""
    found: dict[str, Any] = {"name": ""}
    level = widget
    for _ in range(MAX_DEPTH):
        for key in _INHERITED:
            if key in level and key not in found:
                found[key] = _resolved(level[key])
        # What is shown to a person goes before the name that programs use.
        found["name"] = found["name"] or _words(level.get("/TU")) or _words(level.get("/T"))
        parent = _resolved(level.get("/Parent"))
        if parent is None:
            break
        level = parent
    return found


def _value(field: dict[str, Any]) -> str:
    kind, value = field.get("/FT"), field.get("/V")
    if kind == "/Btn":
        state = _words(value).removeprefix("/")
        return "" if state in ("", "Off") else state
    if kind not in ("/Tx", "/Ch") or int(field.get("/Ff") or 0) & _PASSWORD:
        return ""
    parts = value if isinstance(value, list) else [value]
    return ", ".join(filter(None, (_words(_resolved(part)) for part in parts)))


def _words(value: Any) -> str:  # noqa: ANN401  the same
    """Return a value as text in one line; a long text may be a stream."""
    found = _resolved(value)
    if found is None:
        return ""
    if hasattr(found, "get_data"):
        found = found.get_data().decode("utf-8", "replace")
    return " ".join(str(found).split())


def _resolved(value: Any) -> Any:  # noqa: ANN401  the same
    return value.get_object() if isinstance(value, IndirectObject) else value
