"""What the extraction library leaves to do: formats it does not open, and tidier Markdown.

Runs in the jailed worker only. Pure functions of bytes and text; standard library only.
"""

import html
import io
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from embedserve.errors import ExtractionError

_IMAGE = re.compile(r"\\?!\[([^\[\]]{0,500})\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+\"[^\"\n]*\")?\)")
_LINK = re.compile(r"\[([^\[\]]{0,500})\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+\"[^\"\n]*\")?\)")
# Not at the start of a line, where the bare character would become a heading or a list; not
# before a bar, which would add a column to a table.
_ESCAPE = re.compile(r"(?<=[^\n])\\([\\`*_{}\[\]()#+.!~<>=-])")
_FENCE = re.compile(r"^(`{3,}|~{3,})[^\n]*\n.*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)

_TITLE = re.compile(r"<title[^>]*>([^<]{0,1000})", re.IGNORECASE)
_HEAD_TAGS = re.compile(r"</?(?:meta|link|base)\b[^>]*>", re.IGNORECASE)
_TITLE_ELEMENT = re.compile(r"<title[^>]*>[^<]*(?:</title\s*>)?", re.IGNORECASE)

_DRAW_PAGE = "{urn:oasis:names:tc:opendocument:xmlns:drawing:1.0}page"
_ODF_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"
_MESSAGE = re.compile(rb"^From [^\n]*\n", re.MULTILINE)

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
    """Replace links and images by their words and undo escapes, outside of fenced code.

    Targets are noise to an encoder, and an escape would break a quotation of the document.
    """
    tidied: list[str] = []
    position = 0
    for fence in _FENCE.finditer(text):
        tidied += [_tidy(text[position : fence.start()]), fence[0]]
        position = fence.end()
    return "".join([*tidied, _tidy(text[position:])])


def clean_html(page: str) -> CleanedHtml:
    """Take the title and the tags about the page out of a page."""
    found = _TITLE.search(page)
    title = " ".join(html.unescape(found[1]).split()) if found else ""
    return CleanedHtml(_TITLE_ELEMENT.sub("", _HEAD_TAGS.sub("", page)), title)


def odp_slides(content: bytes) -> list[str]:
    """Return the text of each slide of an OpenDocument presentation."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            document = ElementTree.fromstring(archive.read("content.xml"))
    except (zipfile.BadZipFile, KeyError, ElementTree.ParseError, NotImplementedError) as error:
        raise ExtractionError(
            "corrupt", f"It is not a readable presentation: {error}.", stage="extract"
        ) from error
    tags = (_ODF_TEXT + "p", _ODF_TEXT + "h")
    return [
        "\n\n".join("".join(line.itertext()) for line in page.iter() if line.tag in tags)
        for page in document.iter(_DRAW_PAGE)
    ]


def mbox_messages(content: bytes) -> Iterator[bytes]:
    """Yield the messages of a mailbox file, as `.eml` content."""
    starts = list(_MESSAGE.finditer(content))
    ends = [match.start() for match in starts[1:]] + [len(content)]
    for match, end in zip(starts, ends, strict=True):
        yield content[match.end() : end]


def xml_lines(content: bytes) -> str | None:
    """Return one line `element: text` for each element of an XML document that holds text.

    None when it is not well-formed.
    """
    lines: list[str] = []
    try:
        for _, element in ElementTree.iterparse(io.BytesIO(content), events=("end",)):
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
        except (zipfile.BadZipFile, KeyError, RuntimeError, NotImplementedError):
            return False
    return False


def _tidy(text: str) -> str:
    return _ESCAPE.sub(r"\1", _LINK.sub(r"\1", _IMAGE.sub(r"\1", text)))
