"""The extraction library behind our own nouns. Runs in the worker only."""

import re
import secrets
import tempfile
import time
from typing import Any

import kreuzberg

from embedserve.errors import ExtractionError
from embedserve.ingest import archives, formats
from embedserve.ingest.kinds import FileKind
from embedserve.ingest.readers import NamedRead, Page, Read, refusal

# A document cannot forge the marks between its pages: they differ in every process.
_PAGE_MARK = f"\n\npage-{secrets.token_hex(8)}-{{page_num}}-\n\n"
_MARK_HEAD, _MARK_TAIL = _PAGE_MARK.strip().split("{page_num}")
_COMMON: dict[str, Any] = {
    "use_cache": False,
    "enable_quality_processing": False,
    "concurrency": kreuzberg.ConcurrencyConfig(max_threads=1),
}
_NO_OCR: dict[str, Any] = {"disable_ocr": True, **_COMMON}
_PLAIN = kreuzberg.ExtractionConfig(
    output_format="plain",
    **_NO_OCR,
    pages=kreuzberg.PageConfig(extract_pages=True),
)
_MARKED_PAGES = kreuzberg.PageConfig(insert_page_markers=True, marker_format=_PAGE_MARK)
_MARKDOWN = kreuzberg.ExtractionConfig(
    output_format="markdown",
    **_NO_OCR,
    content_filter=kreuzberg.ContentFilterConfig(include_headers=True, include_footers=True),
    pages=_MARKED_PAGES,
)
_BLANK_PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\ntrailer<</Root 1 0 R>>"
)
_PDF = "application/pdf"
# Stream dictionaries are never packed, so a picture shows in the bytes of any PDF.
_PDF_IMAGE = re.compile(rb"/Subtype\s*/Image\b")
# What the library says of WordPerfect, Word 6 and Excel 4 files, which carry the same suffixes.
_OTHER_FORMAT = re.compile("wrong magic number|Invalid DOC magic|Invalid OLE")
_SHORT_FILE = re.compile(r"FAT has (\d{1,6}) entries, but file has only")
_SECTOR_BYTES, _MAX_PADDING = 512, 1024 * 1024
# Share of a file's time after which no page is begun: a slow one still ends in the rest.
OCR_TIME_SHARE = 0.6
_NOT_READ = "Attached and not read"
OF_ATTACHMENTS = (_NOT_READ, "Failed to extract '")
"""How the warnings of `read_library` begin that are about what is attached to a message."""
# Documents inside of each other that are taken from what the library returns.
MAX_EMBEDDED_DEPTH = 3


def preload() -> None:
    """Load what the library otherwise unpacks at the first PDF, when no file can be opened.

    Rendering is the one entry that starts no threads, which the jail would not bind.
    """
    with tempfile.NamedTemporaryFile(suffix=".pdf") as file:
        file.write(_BLANK_PDF)
        file.flush()
        kreuzberg.render_pdf_page(file.name, 0)
    # Tesseract is entered in the library's list only where its cache can be made, used or not.
    kreuzberg.list_ocr_backends()


def read_library(content: bytes, kind: FileKind) -> Read:
    """Read a document that the extraction library knows."""
    is_pdf = kind.mime == _PDF
    # Markdown from a PDF loses lines and takes bold text for headings (measured); its plain
    # text is complete and keeps the pages apart.
    config = _PLAIN if is_pdf else _MARKDOWN
    try:
        result = kreuzberg.extract_bytes_sync(content, kind.mime, config)
    except kreuzberg.KreuzbergError as error:
        if len(content) < (whole := _bytes_expected(str(error))) <= len(content) + _MAX_PADDING:
            return read_library(content.ljust(whole, b"\0"), kind)
        raise _translated(error, content) from error
    warnings = tuple(str(warning.message) for warning in result.processing_warnings)
    is_mail = result.metadata.get("format_type") == "email"
    title = str(result.metadata.get("subject" if is_mail else "title") or "")
    if is_pdf:
        pages = [Page(page["page_number"], page["content"]) for page in result.pages or []]
        pages = _without_gaps(content, pages) or [Page(None, result.content)]
    else:
        pages = _marked_pages(formats.tidy_markdown(result.content))
    inside = _embedded(result, depth=1)
    read = {one.name for one in inside}
    attached = [str(name) for name in result.metadata.get("attachments") or () if name not in read]
    if attached and not is_pdf:
        warnings = (*warnings, f"{_NOT_READ}: {', '.join(attached)[:500]}.")
    return Read(pages, kind.kind, title, warnings, inside)


def _embedded(result: kreuzberg.ExtractionResult, depth: int) -> list[NamedRead]:
    """Return the documents that the library found inside another, those in them by their path."""
    found: list[NamedRead] = []
    for child in getattr(result, "children", None) or ():
        name = archives.label(str(child["path"]))
        text = formats.tidy_markdown(child["result"].content)
        if text.strip():
            found.append(NamedRead(name, Read(_marked_pages(text), "markdown")))
        if depth < MAX_EMBEDDED_DEPTH:
            deeper = _embedded(child["result"], depth + 1)
            found += [NamedRead(f"{name}/{one.name}", one.read) for one in deeper]
    return found


def _bytes_expected(message: str) -> int:
    """Return how long a compound file says it is whose unused end was never written."""
    found = _SHORT_FILE.search(message)
    return (int(found[1]) + 1) * _SECTOR_BYTES if found else 0


def _without_gaps(content: bytes, pages: list[Page]) -> list[Page]:
    """Take from the Markdown the pages whose plain text is empty.

    One broken character makes the library lose the plain text of its whole page.
    """
    if all(page.text.strip() for page in pages):
        return pages
    try:
        marked = _marked_pages(kreuzberg.extract_bytes_sync(content, _PDF, _MARKDOWN).content)
    except kreuzberg.KreuzbergError:
        return pages
    by_number = {page.number: page for page in marked if page.text.strip()}
    return [page if page.text.strip() else by_number.get(page.number, page) for page in pages]


def has_pictures(content: bytes) -> bool:
    """Tell whether a PDF shows any picture."""
    return _PDF_IMAGE.search(content) is not None


def recognised(content: bytes, pages: list[Page], languages: str, deadline: float) -> list[Page]:
    """Fill the pages of a PDF that have no text by OCR, one by one, until `deadline`.

    `deadline` is on the monotonic clock; pages that it leaves out stay blank.
    """
    filled: list[Page] = []
    for page in pages:
        if page.text.strip() or page.number is None or time.monotonic() > deadline:
            filled.append(page)
            continue
        config = kreuzberg.ExtractionConfig(
            output_format="plain",
            pages=_MARKED_PAGES,
            ocr=_ocr(languages),
            force_ocr_pages=[page.number],
            **_COMMON,
        )
        try:
            found = _marked_pages(_run(content, _PDF, config))
        except ExtractionError:
            found = []  # the caller says how many pages gave nothing
        filled.append(next((one for one in found if one.number == page.number), page))
    return filled


def read_picture(content: bytes, kind: FileKind, languages: str) -> Read:
    """Read the words in a picture by OCR."""
    config = kreuzberg.ExtractionConfig(output_format="plain", ocr=_ocr(languages), **_COMMON)
    return Read([Page(None, _run(content, kind.mime, config))], kind.kind)


def _ocr(languages: str) -> kreuzberg.OcrConfig:
    return kreuzberg.OcrConfig(
        backend="tesseract",
        language=languages,
        tesseract_config=kreuzberg.TesseractConfig(
            language=languages, output_format="text", use_cache=False, enable_table_detection=False
        ),
    )


def _run(content: bytes, mime: str, config: kreuzberg.ExtractionConfig) -> str:
    try:
        return str(kreuzberg.extract_bytes_sync(content, mime, config).content)
    except kreuzberg.KreuzbergError as error:
        raise refusal(
            "ocr_failed", f"OCR failed: {str(error)[:300]}", "Is it a picture, and a whole one?"
        ) from error


def _marked_pages(text: str) -> list[Page]:
    first, *rest = text.split(_MARK_HEAD)
    pages = [Page(None, first)]
    for part in rest:
        number, _, page = part.partition(_MARK_TAIL)
        pages.append(Page(int(number), page))
    return pages


def _translated(error: kreuzberg.KreuzbergError, content: bytes) -> ExtractionError:
    # What wraps an error in the library says all of it once more.
    message = ": ".join(dict.fromkeys(str(error).split(": ")))[:300]
    if "password" in message.lower() or formats.is_encrypted(content):
        return refusal("encrypted", "It is encrypted.", formats.ENCRYPTED_HINT)
    if isinstance(error, kreuzberg.ValidationError) or _OTHER_FORMAT.search(message):
        hint = "Save it in a current format; its name promises another, or a later version."
        return refusal("unsupported", f"It is not what its name says: {message}", hint)
    return refusal(
        "corrupt",
        f"It cannot be read: {message}",
        "Open it in its own program and save it anew, in a current format.",
    )
