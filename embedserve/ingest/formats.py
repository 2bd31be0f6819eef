"""What the extraction library leaves to do: formats it does not open, and tidier Markdown.

Runs in the jailed worker only. Pure functions of bytes and text; standard library only.
"""

import html
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, overload
from xml.etree import ElementTree

from embedserve.errors import ExtractionError

_IMAGE = re.compile(r"\\?!\[([^\[\]]{0,500})\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+\"[^\"\n]*\")?\)")
_LINK = re.compile(r"\[([^\[\]]{0,500})\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+\"[^\"\n]*\")?\)")
# Not at the start of a line, where the bare character would become a heading or a list; not
# before a bar, which would add a column to a table.
_ESCAPE = re.compile(r"(?<=[^\n])\\([\\`*_{}\[\]()#+.!~<>=-])")
# Bold parts of one word: as marks they would make two words of it.
_BOLD_HEAD = re.compile(r"(?<=\w)\*\*(\w[^*\n]{0,500})\*\*")
_BOLD_TAIL = re.compile(r"\*\*([^*\n]{0,500}\w)\*\*(?=\w)")
_FENCE = re.compile(r"^(`{3,}|~{3,})[^\n]*\n.*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)

_TITLE = re.compile(r"<title[^>]*>([^<]{0,1000})", re.IGNORECASE)
_HEAD_TAGS = re.compile(r"</?(?:meta|link|base)\b[^>]*>", re.IGNORECASE)
_TITLE_ELEMENT = re.compile(r"<title[^>]*>[^<]*(?:</title\s*>)?", re.IGNORECASE)

_HTML_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]*)\b[^>]*(?<!/)>")
_CONTAINER = re.compile(
    r"</?(?:div|span|section|article|main|center|font|small|form)\b[^>]*>", re.I
)
# Elements that have no end, or whose end may be left out.
_UNCLOSED = re.compile(
    "area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr|p|li|dt|dd|tr|td|th"
    "|thead|tbody|tfoot|option|optgroup|colgroup|rt|rp",
    re.IGNORECASE,
)
# Found by trial with release 4.10: text 80 deep is lost, 50 deep is not.
LIBRARY_HTML_DEPTH = 50

_DRAW_PAGE = "{urn:oasis:names:tc:opendocument:xmlns:drawing:1.0}page"
_ODF_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_MESSAGE = re.compile(rb"^From [^\n]*\n", re.MULTILINE)

ENCRYPTED_HINT = "Save a copy without a password."

_COMPOUND_FILE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PROTECTED_STREAMS = tuple(
    name.encode("utf-16-le") for name in ("EncryptedPackage", "DRMEncrypted", "EncryptedSummary")
)
# [MS-PPT] 2.3.2: the header token of a presentation whose document is encrypted.
_ENCRYPTED_PPT = b"\xdf\xc4\xd1\xf3"


@dataclass(frozen=True)
class CleanedHtml:
    """A page without what only machines read, and its title."""

    html: str
    title: str


def tidy_markdown(text: str) -> str:
    """Take out link targets, escapes and bold marks within words, outside of fenced code.

    Targets are noise to an encoder, and an escape would break a quotation of the document.
    """
    tidied: list[str] = []
    position = 0
    for fence in _FENCE.finditer(text):
        tidied += [_tidy(text[position : fence.start()]), fence[0]]
        position = fence.end()
    return "".join([*tidied, _tidy(text[position:])])


def clean_html(page: str, max_nesting: int) -> CleanedHtml:
    """Take the title and the tags about the page out of a page.

    Containers are taken out too where they lie deeper than the library follows: it would drop
    their text without a word. Raises ExtractionError when the rest is over `max_nesting`.
    """
    found = _TITLE.search(page)
    title = " ".join(html.unescape(found[1]).split()) if found else ""
    page = _TITLE_ELEMENT.sub("", _HEAD_TAGS.sub("", page))
    if _html_depth(page) > LIBRARY_HTML_DEPTH:
        page = _CONTAINER.sub("<br>", page)
        if (depth := _html_depth(page)) > min(max_nesting, LIBRARY_HTML_DEPTH):
            raise too_nested(depth)
    return CleanedHtml(page, title)


def too_nested(depth: int) -> ExtractionError:
    """Make the error for elements too deep inside of each other."""
    return ExtractionError(
        "too_nested",
        f"Its elements lie {depth} deep inside of each other.",
        stage="extract",
        hint="Such a file is broken or hostile; save it anew, or raise EMBEDSERVE_MAX_NESTING.",
    )


def _html_depth(page: str) -> int:
    depth = deepest = 0
    for tag in _HTML_TAG.finditer(page):
        if not _UNCLOSED.fullmatch(tag[2]):
            depth = max(depth - 1, 0) if tag[1] else depth + 1
            deepest = max(deepest, depth)
    return deepest


def odp_slides(content: bytes) -> list[str]:
    """Return the text of each slide of an OpenDocument presentation."""
    document = odf_part(content, "content.xml")
    tags = (_ODF_TEXT + "p", _ODF_TEXT + "h")
    return [
        "\n\n".join("".join(line.itertext()) for line in page.iter() if line.tag in tags)
        for page in document.iter(_DRAW_PAGE)
    ]


@overload
def odf_part(content: bytes, name: str) -> ElementTree.Element: ...
@overload
def odf_part(
    content: bytes, name: str, *, is_needed: Literal[False]
) -> ElementTree.Element | None: ...
def odf_part(content: bytes, name: str, *, is_needed: bool = True) -> ElementTree.Element | None:
    """Return a part of an OpenDocument file.

    None for one that is not needed and cannot be read; raises ExtractionError for any other.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return ElementTree.fromstring(archive.read(name))
    except (
        *(zipfile.BadZipFile, zlib.error, KeyError, ValueError, EOFError, RuntimeError),
        *(ElementTree.ParseError, NotImplementedError),
    ) as error:
        if not is_needed:
            return None
        if is_encrypted(content):
            raise ExtractionError(
                "encrypted", "It is encrypted.", stage="extract", hint=ENCRYPTED_HINT
            ) from error
        raise ExtractionError(
            "corrupt", f"It is not a readable document: {error}.", stage="extract"
        ) from error


def mbox_messages(content: bytes) -> Iterator[bytes]:
    """Yield the messages of a mailbox file, as `.eml` content; all of it where none is marked."""
    starts = list(_MESSAGE.finditer(content))
    if not starts:
        yield content
        return
    ends = [match.start() for match in starts[1:]] + [len(content)]
    for match, end in zip(starts, ends, strict=True):
        yield content[match.end() : end]


def xml_lines(content: bytes, max_nesting: int) -> str | None:
    """Return one line `element: text` for each element of an XML document that holds text.

    None when it is not well-formed; raises ExtractionError when it is nested too deep.
    """
    lines: list[str] = []
    depth = 0
    try:
        for event, element in ElementTree.iterparse(io.BytesIO(content), events=("start", "end")):
            if event == "start":
                depth += 1
                if depth > max_nesting:
                    raise too_nested(depth)
                continue
            depth -= 1
            words = [element.text or "", *(child.tail or "" for child in element)]
            text = " ".join(" ".join(words).split())
            if text:
                lines.append(f"{element.tag.rpartition('}')[2]}: {text}")
            tail = element.tail
            element.clear()
            element.tail = tail  # belongs to the parent, which is still to come
    except (ElementTree.ParseError, LookupError, ValueError):
        return None
    return "\n".join(lines)


def is_encrypted(content: bytes) -> bool:
    """Tell whether an office file that could not be read is one that asks for a password."""
    if content.startswith(_COMPOUND_FILE):
        if any(name in content for name in _PROTECTED_STREAMS) or _ENCRYPTED_PPT in content:
            return True
        # [MS-DOC] 2.5.2: bit fEncrypted; the stream begins right after the header as a rule.
        return content[512:514] == b"\xec\xa5" and bool(content[523] & 1)
    if content.startswith(b"PK"):
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                return b"encryption-data" in archive.read("META-INF/manifest.xml")
        except (
            zipfile.BadZipFile,
            zlib.error,
            KeyError,
            RuntimeError,
            NotImplementedError,
            ValueError,
        ):
            return False
    return False


def _tidy(text: str) -> str:
    text = _BOLD_TAIL.sub(r"\1", _BOLD_HEAD.sub(r"\1", text))
    return _ESCAPE.sub(r"\1", _LINK.sub(r"\1", _IMAGE.sub(r"\1", text)))
