"""The process that opens foreign bytes. Started by `extract.ExtractorPool`, never imported by it.

    python -m embedserve.ingest.extract_worker SOCKET_FD PARENT_PID MEMORY_BYTES

It imports what it needs, closes the jail around itself, says so, and then answers requests one
by one until the socket closes. The bytes come as an open descriptor with each request. Messages
both ways are JSON behind their length (4 bytes, big-endian).
"""

import hashlib
import json
import os
import secrets
import socket
import struct
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

import kreuzberg

from embedserve.errors import ExtractionError
from embedserve.ingest import decode, formats, jail
from embedserve.ingest.blocks import markdown_sections
from embedserve.ingest.kinds import FileKind, kind_of, unsupported_hint
from embedserve.ingest.readers import Page, Read, read_odp, read_text, read_xml, refusal

MAX_REQUEST_BYTES = 65_536
# A title is looked for at the top only.
TITLE_SEARCH_CHARS = 20_000
MAX_WARNINGS = 10

# A document cannot forge the marks between its pages: they differ in every process.
_PAGE_MARK = f"\n\npage-{secrets.token_hex(8)}-{{page_num}}-\n\n"
_MARK_HEAD, _MARK_TAIL = _PAGE_MARK.strip().split("{page_num}")
_COMMON: dict[str, Any] = {
    "use_cache": False,
    "disable_ocr": True,
    "enable_quality_processing": False,
    "concurrency": kreuzberg.ConcurrencyConfig(max_threads=1),
}
_PLAIN = kreuzberg.ExtractionConfig(
    output_format="plain", pages=kreuzberg.PageConfig(extract_pages=True), **_COMMON
)
_MARKDOWN = kreuzberg.ExtractionConfig(
    output_format="markdown",
    content_filter=kreuzberg.ContentFilterConfig(include_headers=True, include_footers=True),
    pages=kreuzberg.PageConfig(insert_page_markers=True, marker_format=_PAGE_MARK),
    **_COMMON,
)
_BLANK_PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>endobj\ntrailer<</Root 1 0 R>>"
)
# What programs write into the title field of their own accord.
_NO_TITLES = {
    "untitled",
    "anonymous",
    "(anonymous)",
    "unspecified",
    "(unspecified)",
    "powerpoint presentation",
    "microsoft word document",
    "slide 1",
}


def main() -> None:
    """Serve requests on the socket given on the command line until it closes."""
    fd, parent_pid, memory_bytes = map(int, sys.argv[1:])
    decode.preload()
    _load_pdf_library()
    with socket.socket(fileno=fd) as channel:
        _send(channel, {"jail": jail.apply(memory_bytes, parent_pid)})
        while (request := _receive(channel)) is not None:
            _send(channel, _answer(request))


def _load_pdf_library() -> None:
    """Load what the library otherwise unpacks at the first PDF, when no file can be opened.

    Rendering is the one entry that starts no threads, which the jail would not bind.
    """
    with tempfile.NamedTemporaryFile(suffix=".pdf") as file:
        file.write(_BLANK_PDF)
        file.flush()
        kreuzberg.render_pdf_page(file.name, 0)


@dataclass(frozen=True)
class _Request:
    name: str
    max_bytes: int
    max_text_chars: int
    cpu_s: float
    file: int


def _receive(channel: socket.socket) -> _Request | None:
    received, fds, _, _ = socket.recv_fds(channel, MAX_REQUEST_BYTES, 1)
    while received and len(received) < 4 + int.from_bytes(received[:4], "big"):
        more = channel.recv(MAX_REQUEST_BYTES)
        received = received + more if more else b""
    if not received:
        return None
    return _Request(**json.loads(received[4:]), file=fds[0])


def _send(channel: socket.socket, reply: dict[str, Any]) -> None:
    body = json.dumps(reply, ensure_ascii=False, separators=(",", ":")).encode()
    channel.sendall(struct.pack(">I", len(body)))
    channel.sendall(body)


def _answer(request: _Request) -> dict[str, Any]:
    jail.limit_cpu(request.cpu_s)
    try:
        with open(request.file, "rb") as file:
            # One byte more than allowed tells that the file has grown since it was measured.
            content = file.read(request.max_bytes + 1)
        return _extract(content, request)
    except ExtractionError as error:
        return {
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
            "is_retryable": error.is_retryable,
        }
    except MemoryError:
        return {"code": "out_of_memory", "message": "Reading it took more memory than allowed."}
    except Exception as error:
        return {"code": "corrupt", "message": f"{type(error).__name__}: {str(error)[:300]}"}


def _extract(content: bytes, request: _Request) -> dict[str, Any]:
    if len(content) > request.max_bytes:
        raise refusal("too_large", f"It grew over {request.max_bytes} bytes while it was read.")
    read = _read(content, request.name)
    texts: list[str] = []
    pages: list[list[int]] = []
    length = 0
    for page in read.pages:
        text = decode.clean(page.text).rstrip("\n")
        if page.number is not None:
            text = text.lstrip("\n")  # but a whole file keeps the offsets of its characters
        if not text.strip():
            continue
        if page.number is not None:
            pages.append([page.number, length, length + len(text)])
        texts.append(text)
        length += len(text) + 2
    text = "\n\n".join(texts)
    if not text.strip():
        _refuse_silence(content, request.name)
    if len(text) > request.max_text_chars:
        raise refusal("text_too_large", f"Its text has {len(text)} characters.")
    return {
        "text": text,
        "kind": read.kind,
        "title": _title(read, text, request.name),
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
        "pages": pages,
        "warnings": list(dict.fromkeys(read.warnings))[:MAX_WARNINGS],
    }


def _refuse_silence(content: bytes, name: str) -> None:
    if formats.is_encrypted(content):
        raise refusal("encrypted", "It is encrypted.", "Save a copy without a password.")
    hint = "If it was scanned, run OCR over it first." if name.lower().endswith(".pdf") else ""
    raise refusal("no_text", "There is no text in it.", hint or "It may hold images only.")


# -- readers ----------------------------------------------------------------------------------


def _read(content: bytes, name: str) -> Read:
    kind = _sniffed(content) or kind_of(name)
    hint = unsupported_hint(name)
    if hint is not None and kind is None:
        raise refusal("unsupported", "Its format is not read.", hint)
    if kind is None:
        return read_text(content, FileKind("text", "text"))
    readers = {
        "text": read_text,
        "html": _read_html,
        "xml": read_xml,
        "odp": read_odp,
        "mbox": _read_mbox,
        "library": _read_library,
    }
    return readers[kind.reader](content, kind)


def _sniffed(content: bytes) -> FileKind | None:
    """Trust the bytes over the name for two formats that often carry a wrong one."""
    if content.startswith(b"%PDF-"):
        return kind_of("x.pdf")
    return kind_of("x.rtf") if content.startswith(b"{\\rtf") else None


def _read_html(content: bytes, kind: FileKind) -> Read:
    decoded = decode.decode(content, is_markup=True)
    page = formats.clean_html(decoded.text if decoded else "")
    read = _read_library(page.html.encode(), kind)
    return Read(read.pages, read.kind, page.title, decoded.warnings if decoded else ())


def _read_mbox(content: bytes, kind: FileKind) -> Read:
    pages: list[Page] = []
    for message in formats.mbox_messages(content):
        pages += _read_library(message, kind).pages
    return Read(pages, kind.kind)


def _read_library(content: bytes, kind: FileKind) -> Read:
    is_pdf = kind.mime == "application/pdf"
    try:
        # Markdown from a PDF loses lines and takes bold text for headings (measured); its plain
        # text is complete and keeps the pages apart.
        result = kreuzberg.extract_bytes_sync(content, kind.mime, _PLAIN if is_pdf else _MARKDOWN)
    except kreuzberg.KreuzbergError as error:
        raise _translated(error, content) from error
    warnings = tuple(str(warning.message) for warning in result.processing_warnings)
    is_mail = result.metadata.get("format_type") == "email"
    title = str(result.metadata.get("subject" if is_mail else "title") or "")
    if is_pdf:
        pages = [Page(page["page_number"], page["content"]) for page in result.pages or []]
        return Read(pages or [Page(None, result.content)], kind.kind, title, warnings)
    return Read(_marked_pages(formats.tidy_markdown(result.content)), kind.kind, title, warnings)


def _marked_pages(text: str) -> list[Page]:
    first, *rest = text.split(_MARK_HEAD)
    pages = [Page(None, first)]
    for part in rest:
        number, _, page = part.partition(_MARK_TAIL)
        pages.append(Page(int(number), page))
    return pages


def _translated(error: kreuzberg.KreuzbergError, content: bytes) -> ExtractionError:
    message = str(error)[:300]
    if "password" in message.lower() or formats.is_encrypted(content):
        return refusal("encrypted", "It is encrypted.", "Save a copy without a password.")
    if isinstance(error, kreuzberg.ValidationError):
        return refusal("unsupported", f"It cannot be opened: {message}")
    return refusal(
        "corrupt",
        f"It cannot be read: {message}",
        "Open it in its own program and save it anew, in a current format.",
    )


def _title(read: Read, text: str, name: str) -> str:
    title = " ".join(decode.clean(read.title).split())
    if title and title.casefold() not in _NO_TITLES:
        return title
    # The first heading of a spreadsheet is the name of its first sheet.
    if read.kind == "markdown" and not name.lower().endswith((".xlsx", ".xls", ".ods")):
        for section in markdown_sections(text[:TITLE_SEARCH_CHARS]):
            if section.heading:
                return section.heading[0]
    return os.path.splitext(name)[0] if read.kind != "code" else name


if __name__ == "__main__":
    main()
