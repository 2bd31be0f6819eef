"""Addresses of documents' pages, made and told here alone: `/d/{id}-{code}`. Nothing is read.

The code names one path of one index, and only this catalog's key makes it: whoever has a link was
given it, and in an index without access rules that is the permission. In one with rules it is none,
for links are passed on. A browser cannot show who asks, though, so whoever has proved that is given
links that carry a signature: it opens that version of that document until its time is over, as long
as neither its metadata nor the rules by which it was shown have changed.
"""

import hmac
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from embedserve.services.definitions import definition_of
from embedserve.services.viewing import is_ruled, viewer
from embedserve.types import DocumentHead, Index, StoredChunk

_CODE_BYTES = 10  # 80 bits: guessing at 1,000 a second would take 10^13 years
_SIGNATURE_BYTES = 16
_VERSION_CHARS = 8
_TOKEN = re.compile(r"([1-9][0-9]{0,17})-([0-9a-f]{%d})" % (2 * _CODE_BYTES))  # noqa: UP031
_SIGNED = re.compile(r"([0-9]{1,12})-([0-9a-f]{%d})" % (2 * _SIGNATURE_BYTES))  # noqa: UP031


@dataclass(frozen=True)
class LinkedDocument:
    """A version of a document, as far as links name it."""

    id: int
    index: Index
    path: str
    sha256: str
    """Of its file."""
    metadata: str
    """JSON object."""

    @classmethod
    def of_chunk(cls, index: Index, chunk: StoredChunk) -> "LinkedDocument":
        """Return the document of a chunk."""
        return cls(chunk.document_id, index, chunk.path, chunk.sha256, chunk.metadata)

    @classmethod
    def of_head(cls, index: Index, head: DocumentHead) -> "LinkedDocument":
        """Return a document that was looked up."""
        return cls(head.id, index, head.path, head.sha256, head.metadata)


class DocumentLinks:
    """Make links with a key, and tell whether they are ours."""

    def __init__(self, key: bytes, *, signed_s: int, now: Callable[[], float] = time.time) -> None:
        """Let signatures hold for `signed_s` seconds; 0: none is made, and none holds."""
        self._key = key
        self._signed_s = signed_s
        self._now = now

    def token(self, document: LinkedDocument) -> str:
        """Return what names a document, and shows that whoever has it was told of it."""
        named = f"{document.index.id}\0{document.path}".encode()
        return f"{document.id}-{self._digest(named, _CODE_BYTES)}"

    def page(self, document: LinkedDocument) -> str:
        """Return the path of a document's page, signed for whoever asks where that is needed.

        Only for a document that was shown to them: whether they may see it is not asked again.
        """
        return self._address(document, {})

    def passage(self, document: LinkedDocument, start: int, end: int) -> str:
        """Return the same to characters of the page, which tells when the document has changed."""
        version = {"v": document.sha256[:_VERSION_CHARS]}
        return f"{self._address(document, version)}#chars={start}-{end}"

    def is_named(self, document: LinkedDocument, token: str) -> bool:
        """Tell whether a token is this document's."""
        return hmac.compare_digest(self.token(document), token)

    def is_opened(self, document: LinkedDocument, signed: str) -> bool:
        """Tell whether a signature opens this document to somebody who has shown no token.

        Whose token was shown is judged by the rules alone.
        """
        match = _SIGNED.fullmatch(signed)
        if match is None or viewer().claims:
            return False
        until = int(match[1])
        is_current = 0 < until - self._now() <= self._signed_s
        return is_current and hmac.compare_digest(self._signature(document, until), match[2])

    def _address(self, document: LinkedDocument, query: dict[str, str]) -> str:
        if self._signed_s and viewer().is_proven and is_ruled(document.index):
            until = int(self._now()) + self._signed_s
            query = {**query, "signed": f"{until}-{self._signature(document, until)}"}
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        return f"/d/{self.token(document)}{asked and '?'}{asked}"

    def _signature(self, document: LinkedDocument, until: int) -> str:
        """Return what opens a document until then, Unix time in seconds: its page and its file."""
        access = definition_of(document.index).access
        rules = access.model_dump_json() if access else ""
        # Apart from what codes are made of, which begins with a number; JSON has no \0.
        parts = (
            "open",
            self.token(document),
            document.sha256,
            document.metadata,
            rules,
            str(until),
        )
        return self._digest("\0".join(parts).encode(), _SIGNATURE_BYTES)

    def _digest(self, said: bytes, size: int) -> str:
        return hmac.digest(self._key, said, sha256)[:size].hex()


def id_in(token: str) -> int | None:
    """Return the number of the document that a token names; None: it is no token."""
    match = _TOKEN.fullmatch(token)
    return int(match[1]) if match else None
