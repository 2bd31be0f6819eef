"""Where a citation leads: a page with the text of one document, for whoever may see it.

What its address looks like, and what opens it, is in `document_links.py`.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from embedserve.errors import DocumentNotFoundError, InvalidRequestError
from embedserve.services.blanks import blanks_between
from embedserve.services.document_links import DocumentLinks, LinkedDocument, id_in
from embedserve.services.viewing import is_seen
from embedserve.store.catalog import Catalog
from embedserve.types import DocumentHead, Index, StoredChunk, TextPiece

PAGE_CHARS = 100_000
"""Of text on one page: what a browser lays out at once."""
LEAD_CHARS = 4_000
"""Of text before the passage that is asked for."""
_SECRET = "link_secret"


@dataclass(frozen=True)
class PageName:
    """What an address says of a document."""

    token: str
    """What follows `/d/`."""
    signed: str = ""
    """Its signature; empty: it has none."""


@dataclass(frozen=True)
class _Opened:
    head: DocumentHead
    signed: str = ""
    """The signature that opened it; empty: none was needed."""


@dataclass(frozen=True)
class Passage:
    """A part of a document's text, in characters, end exclusive."""

    start: int
    end: int


@dataclass(frozen=True)
class DocumentPage:
    """A part of a document to be read."""

    head: DocumentHead
    pieces: list[TextPiece]
    passage: Passage | None
    """What to mark."""
    has_changed: bool
    """Whether the document is another one than when the link was made."""
    signed: str = ""
    """The signature that opened it; empty: none was needed."""

    @property
    def start(self) -> int:
        """Return the first character that is shown."""
        return self.pieces[0].start if self.pieces else 0

    @property
    def end(self) -> int:
        """Return where the text that is shown ends."""
        return self.pieces[-1].end if self.pieces else 0


@dataclass(frozen=True)
class TextRange:
    """A part of a document's text. Of the blanks between two chunks, two line ends at most."""

    head: DocumentHead
    text: str
    start: int
    end: int
    """One after the last character."""


class DocumentPages:
    """Make links to documents, the pages they lead to, and their text by itself."""

    def __init__(self, catalog: Catalog, signed_s: int = 0) -> None:
        """Let signed links hold for `signed_s` seconds; 0: none is signed."""
        self._catalog = catalog
        # Here and not with the first link: who asks a question must not have to write.
        self._links = DocumentLinks(_secret(catalog), signed_s=signed_s)

    def link(self, head: DocumentHead) -> str:
        """Return the path of a document's page on this server."""
        return self._links.page(self._linked(head))

    def token(self, index: Index, chunk: StoredChunk) -> str:
        """Return what names the document of a chunk, and shows that whoever has it was told."""
        return self._links.token(LinkedDocument.of_chunk(index, chunk))

    def permalink(self, index: Index, chunk: StoredChunk) -> str:
        """Return the link to a chunk, which tells when its document has changed since."""
        document = LinkedDocument.of_chunk(index, chunk)
        return self._links.passage(document, chunk.start, chunk.end)

    def page(
        self,
        name: PageName,
        *,
        start: int = 0,
        passage: Passage | None = None,
        version: str = "",
    ) -> DocumentPage:
        """Return the text from the character `start` on, or around a passage.

        Raises DocumentNotFoundError, and InvalidRequestError for a passage that ends before it
        begins.
        """
        opened = self._open(name)
        head = opened.head
        if passage:
            if not 0 <= passage.start < passage.end:
                raise InvalidRequestError(
                    "`chars` names no passage: write it as `chars=120-480`, the first character "
                    "and the one after the last."
                )
            start = max(0, passage.start - LEAD_CHARS)
        pieces = self._catalog.document_text.pieces(head.id, start, max_chars=PAGE_CHARS)
        has_changed = bool(version) and not head.sha256.startswith(version)
        return DocumentPage(head, pieces, passage, has_changed, opened.signed)

    def read(self, head: DocumentHead, *, start: int = 0, max_chars: int) -> TextRange:
        """Return the text from the character `start` on, `max_chars` of it at the most."""
        limit, end = start + max_chars, start
        parts, former = [], None
        for piece in self._pieces(head.id, start, limit):
            inside = piece.text[max(0, start - piece.start) : limit - piece.start]
            parts += [blanks_between(former, piece) if former else "", inside]
            former, end = piece, max(start, piece.start) + len(inside)
        return TextRange(head, "".join(parts), start, end)

    def _pieces(self, document_id: int, start: int, limit: int) -> Iterator[TextPiece]:
        """Yield every chunk that has a character from `start` on and before `limit`."""
        while start < limit:
            found = self._catalog.document_text.pieces(document_id, start, max_chars=limit - start)
            # Behind the end there is the last one still.
            pieces = [piece for piece in found if start < piece.end and piece.start < limit]
            if not pieces:
                return
            yield from pieces
            start = pieces[-1].end

    def document(self, document_id: int) -> DocumentHead:
        """Return a document by its number, for callers who need no link to it.

        Raises DocumentNotFoundError, also for one that gave no text.
        """
        head = self._seen(document_id)
        if head is None:
            raise DocumentNotFoundError(
                f"There is no document {document_id} with a text. List the documents of its index."
            )
        return head

    def head(self, name: PageName) -> DocumentHead:
        """Return the document that an address names, to whoever may see it.

        Raises DocumentNotFoundError. In an index with access rules the address is no permission,
        but for the one that is signed.
        """
        return self._open(name).head

    def _open(self, name: PageName) -> _Opened:
        number = id_in(name.token)
        head = None if number is None else self._catalog.document_text.head(number)
        if head:
            linked = self._linked(head)
            if self._links.is_named(linked, name.token):
                if is_seen(self._catalog, linked.index, head.id):
                    return _Opened(head)
                if self._links.is_opened(linked, name.signed):
                    return _Opened(head, name.signed)
        raise DocumentNotFoundError(
            "There is no document at this address: it was removed since, or the link is not "
            "complete, or is too old, or you may not see it. Ask again for a current one."
        )

    def _seen(self, document_id: int) -> DocumentHead | None:
        """Return a document; None: there is none, or whoever asks may not see it."""
        head = self._catalog.document_text.head(document_id)
        if head is None:
            return None
        index = self._catalog.indexes.get(head.index)
        return head if is_seen(self._catalog, index, head.id) else None

    def _linked(self, head: DocumentHead) -> LinkedDocument:
        return LinkedDocument.of_head(self._catalog.indexes.get(head.index), head)


def _secret(catalog: Catalog) -> bytes:
    """Return what codes are made with: in the catalog, so that links outlive the process."""
    known = catalog.get_meta(_SECRET)
    if known is None:
        known = secrets.token_hex(32)
        catalog.set_meta(_SECRET, known)
    return bytes.fromhex(known)
