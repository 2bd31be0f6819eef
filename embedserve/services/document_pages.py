"""Where a citation leads: a page with the text of one document, and a link that nobody can guess.

A browser that follows a link sends no API key, so the link itself is the permission, but in an
index with access rules (viewing.py): it holds a code that only this catalog can make. It names one
path of one index: a document that takes the number of one that was deleted has another link.
"""

import hmac
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from embedserve.errors import DocumentNotFoundError, InvalidRequestError
from embedserve.services.blanks import blanks_between
from embedserve.services.viewing import is_seen
from embedserve.store.catalog import Catalog
from embedserve.types import DocumentHead, StoredChunk, TextPiece

PAGE_CHARS = 100_000
"""Of text on one page: what a browser lays out at once."""
LEAD_CHARS = 4_000
"""Of text before the passage that is asked for."""
_CODE_BYTES = 10  # 80 bits: guessing at 1,000 a second would take 10^13 years
_VERSION_CHARS = 8
_TOKEN = re.compile(r"([1-9][0-9]{0,17})-([0-9a-f]{%d})" % (2 * _CODE_BYTES))  # noqa: UP031
_SECRET = "link_secret"


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

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        # Here and not with the first link: who asks a question must not have to write.
        self._key = _secret(catalog)

    def link(self, document_id: int, index_id: int, path: str) -> str:
        """Return the path of a document's page on this server."""
        return f"/d/{self.token(document_id, index_id, path)}"

    def token(self, document_id: int, index_id: int, path: str) -> str:
        """Return what names a document, and shows that whoever has it was told of it."""
        return f"{document_id}-{self._code(index_id, path)}"

    def permalink(self, index_id: int, chunk: StoredChunk) -> str:
        """Return the link to a chunk, which tells when its document has changed since."""
        link = self.link(chunk.document_id, index_id, chunk.path)
        return f"{link}?v={chunk.sha256[:_VERSION_CHARS]}#chars={chunk.start}-{chunk.end}"

    def page(
        self, token: str, *, start: int = 0, passage: Passage | None = None, version: str = ""
    ) -> DocumentPage:
        """Return the text from the character `start` on, or around a passage.

        `token` is what follows `/d/`. Raises DocumentNotFoundError, and InvalidRequestError for a
        passage that ends before it begins.
        """
        head = self.head(token)
        if passage:
            if not 0 <= passage.start < passage.end:
                raise InvalidRequestError(
                    "`chars` names no passage: write it as `chars=120-480`, the first character "
                    "and the one after the last."
                )
            start = max(0, passage.start - LEAD_CHARS)
        pieces = self._catalog.document_text.pieces(head.id, start, max_chars=PAGE_CHARS)
        has_changed = bool(version) and not head.sha256.startswith(version)
        return DocumentPage(head, pieces, passage, has_changed)

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

    def head(self, token: str) -> DocumentHead:
        """Return the document that a link names, to whoever may see it.

        Raises DocumentNotFoundError. In an index with access rules the link is no permission.
        """
        match = _TOKEN.fullmatch(token)
        head = self._seen(int(match[1])) if match else None
        code = self._code(head.index_id, head.path) if head else ""
        if not head or not match or not hmac.compare_digest(code, match[2]):
            raise DocumentNotFoundError(
                "There is no document at this address: it was removed since, or the link is not "
                "complete, or you may not see it. Ask again for a current one."
            )
        return head

    def _seen(self, document_id: int) -> DocumentHead | None:
        """Return a document; None: there is none, or whoever asks may not see it."""
        head = self._catalog.document_text.head(document_id)
        if head is None:
            return None
        index = self._catalog.indexes.get(head.index)
        return head if is_seen(self._catalog, index, head.id) else None

    def _code(self, index_id: int, path: str) -> str:
        named = f"{index_id}\0{path}".encode()
        return hmac.digest(self._key, named, sha256)[:_CODE_BYTES].hex()


def _secret(catalog: Catalog) -> bytes:
    """Return what codes are made with: in the catalog, so that links outlive the process."""
    known = catalog.get_meta(_SECRET)
    if known is None:
        known = secrets.token_hex(32)
        catalog.set_meta(_SECRET, known)
    return bytes.fromhex(known)
