"""Where citations lead: `/d/{document}`, a page with the text of a document, safe to open.

Nothing of a document reaches the page but its text, escaped; the only script that the page may run
is our own, by its digest. Part of the address is its permission, so it is told to no other site,
and kept by no browser.
"""

import re
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from embedserve.api.replies import services
from embedserve.api.schema_parts import FILE
from embedserve.errors import InvalidRequestError
from embedserve.services.blanks import blanks_between
from embedserve.services.document_pages import DocumentPage, PageName, Passage
from embedserve.services.originals import Offer
from embedserve.types import TextPiece

router = APIRouter(tags=["documents"])

Signed = Annotated[
    str, Query(description="What opens a document of an index with access rules, for a while.")
]

_CHARS = re.compile(r"([0-9]{1,12})-([0-9]{1,12})")
# A browser keeps nothing, and tells no site where it came from.
_HEADERS = {
    "Cache-Control": "private, no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class _Address:
    """Of a page, for its own links."""

    document: str
    signed: str
    """What opened it; empty: nothing."""

    def to(self, below: str = "", **query: str) -> str:
        """Return the address of what is below it, or of another part of it, as HTML has it."""
        asked = urlencode({**query, **({"signed": self.signed} if self.signed else {})})
        return escape(f"/d/{self.document}{below}{asked and '?'}{asked}")


@router.get(
    "/d/{document}",
    response_class=Response,
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
def document_page(
    request: Request,
    document: str,
    start: Annotated[
        int, Query(alias="from", ge=0, le=2**62, description="Show the text from here on.")
    ] = 0,
    chars: Annotated[
        str | None,
        Query(description="The passage to show and mark, `120-480`; `#chars=` does the same."),
    ] = None,
    version: Annotated[
        str, Query(alias="v", max_length=64, description="What the link was made of.")
    ] = "",
    signed: Signed = "",
) -> Response:
    """Show the text of a document to a person, with the passage of a citation marked."""
    passage = _passage(chars) if chars else None
    name = PageName(document, signed)
    found = services(request).pages.page(name, start=start, passage=passage, version=version)
    offer = services(request).originals.offer(found.head)
    headers = {**_HEADERS, "Content-Security-Policy": _policy()}
    return Response(_html(found, document, offer), media_type="text/html", headers=headers)


@router.get("/d/{document}/original", response_class=Response)
def original(request: Request, document: str, signed: Signed = "") -> Response:
    """Give the file that a document was read from, to be saved, if it is still what was read."""
    head = services(request).pages.head(PageName(document, signed))
    found = services(request).originals.open(head)
    headers = {
        **_HEADERS,
        "Content-Disposition": _disposition(found.name),
        "Content-Length": str(found.state.size_bytes),
        # Should a browser show it all the same: nothing in it runs, and it is of no origin.
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    return StreamingResponse(found.blocks(), media_type=FILE, headers=headers)


def _disposition(name: str) -> str:
    """Return the header that has a file saved under its name (RFC 6266)."""
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def _passage(chars: str) -> Passage:
    match = _CHARS.fullmatch(chars)
    if not match:
        raise InvalidRequestError(
            f"`chars` is `{chars[:40]}`; write it as `chars=120-480`, the first character and the "
            "one after the last."
        )
    return Passage(int(match[1]), int(match[2]))


def _html(page: DocumentPage, document: str, offer: Offer | None) -> str:
    head = page.head
    earlier = max(0, page.start - (page.end - page.start)) if page.start else None
    later = page.end if page.end < head.chars else None
    address = _Address(document, page.signed)
    return Template(_file("html")).substitute(
        title=escape(head.title or head.path),
        place=escape(f"{head.path} · index {head.index}"),
        original=_original(offer, address) if offer else "",
        notice=_notice(page),
        earlier=_link(address, earlier, "Earlier"),
        later=_link(address, later, "Later"),
        text=_text(page),
        style=_file("css"),
        script=_file("js"),
    )


def _notice(page: DocumentPage) -> str:
    if page.has_changed:
        told = "This document has changed since the link was made; the place may be another one."
    elif page.passage and page.passage.start >= page.head.chars:
        told = "The document ends before the passage that was asked for."
    else:
        return ""
    return f'<p class="notice">{told}</p>'


def _original(offer: Offer, address: _Address) -> str:
    if offer.problem:
        told = escape(offer.problem)
    elif offer.address:
        told = f'Fetched from <a href="{escape(offer.address)}">{escape(offer.address)}</a>'
    else:
        size = f"{offer.size_bytes:,} bytes"
        told = f'<a href="{address.to("/original")}">Original file</a>, {size}'
    return f'<p class="place">{told}</p>'


def _link(address: _Address, start: int | None, word: str) -> str:
    if start is None:
        return ""
    there = address.to(**{"from": str(start)})
    return f'<p class="more"><a href="{there}">{word}</a></p>'


def _text(page: DocumentPage) -> str:
    parts, former = [], None
    for piece in page.pieces:
        parts.append(_between(former, piece) + _marked(piece, page.passage))
        former = piece
    return "".join(parts)


def _between(former: TextPiece | None, piece: TextPiece) -> str:
    """Return the blanks between two chunks, which keep none, and the page that begins."""
    blanks = blanks_between(former, piece) if former else ""
    if piece.page is None or (former and former.page == piece.page):
        return blanks
    return f'{blanks}<span class="page">page {piece.page}</span>'


def _marked(piece: TextPiece, passage: Passage | None) -> str:
    """Return a chunk's text, escaped, with its share of the passage marked."""
    if passage is None or passage.end <= piece.start or passage.start >= piece.end:
        return escape(piece.text)
    first = max(0, passage.start - piece.start)
    last = min(len(piece.text), passage.end - piece.start)
    before, inside, after = piece.text[:first], piece.text[first:last], piece.text[last:]
    return f"{escape(before)}<mark>{escape(inside)}</mark>{escape(after)}"


@cache
def _file(kind: str) -> str:
    return files("embedserve.api").joinpath(f"document_page.{kind}").read_text(encoding="utf-8")


@cache
def _policy() -> str:
    """Return what the page may do: use the style and the script that are ours, nothing else."""
    digests = (sha256(_file(kind).encode()).digest() for kind in ("js", "css"))
    script, style = (b64encode(digest).decode() for digest in digests)
    return (
        f"default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
