"""The file that a document was read from, for whoever may see its page: if it is still that file.

Only files below the folders that may be ingested, and uploads; wherever a name or a link leads by
now. What was fetched from an address is not kept. An archive is one document, so its original is
the archive; there is none of a member.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from embedserve.errors import (
    ConflictError,
    DocumentNotFoundError,
    EmbedserveError,
    ExtractionError,
    InvalidRequestError,
    PathNotAllowedError,
    PathNotFoundError,
    TooLargeError,
)
from embedserve.ingest.opening import FileState, opened, state_of
from embedserve.services.roots import AllowedRoots
from embedserve.store.catalog import Catalog
from embedserve.store.upload_files import UploadFiles
from embedserve.types import DocumentFile, DocumentHead

BLOCK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Offer:
    """What a page says of the original."""

    name: str
    size_bytes: int
    problem: str = ""
    """Why it cannot be had; empty: it can, unless a closer look finds that it changed."""
    address: str = ""
    """Where it was fetched from, if it is not of this machine."""


@dataclass(frozen=True)
class Original:
    """A file that is what its document was read from, opened."""

    name: str
    file: BinaryIO
    state: FileState

    def blocks(self) -> Iterator[bytes]:
        """Give its bytes and close it; raise ConflictError as soon as it is another file."""
        left = self.state.size_bytes
        with self.file as file:
            while left:
                block = file.read(min(BLOCK_BYTES, left))
                left -= len(block)
                if not block or state_of(file.fileno()) != self.state:
                    raise ConflictError(_CHANGED)
                yield block


class Originals:
    """Offer and open originals of at most `limit_bytes`; 0: none is offered."""

    def __init__(
        self, catalog: Catalog, roots: AllowedRoots, uploads: UploadFiles, *, limit_bytes: int
    ) -> None:
        self._catalog = catalog
        self._roots = roots
        self._uploads = uploads
        self._limit_bytes = limit_bytes

    def offer(self, head: DocumentHead) -> Offer | None:
        """Tell whether a document's original can be had, by a look at its size; None: by no means.

        `open` looks at all of it.
        """
        if not self._limit_bytes:
            return None
        if head.source == "url":
            return Offer(_name(head), 0, address=head.path)
        try:
            with self._opened(head) as file:
                return Offer(_name(head), state_of(file).size_bytes)
        except (DocumentNotFoundError, ConflictError, TooLargeError, PathNotAllowedError) as error:
            return Offer(_name(head), 0, problem=error.message)

    def open(self, head: DocumentHead) -> Original:
        """Open the file of a document, which has the digest of what was read.

        Raises DocumentNotFoundError where there is none, PathNotAllowedError outside of the
        allowed folders, ConflictError for a file that has changed, TooLargeError.
        """
        if not self._limit_bytes or head.source == "url":
            raise DocumentNotFoundError(
                "The original of this document is not offered here; its page has the text."
            )
        with self._opened(head) as number, os.fdopen(os.dup(number), "rb") as file:
            state = state_of(number)
            if hashlib.file_digest(file, "sha256").hexdigest() != head.sha256:
                raise ConflictError(_CHANGED)
            file.seek(0)
            return Original(_name(head), os.fdopen(os.dup(file.fileno()), "rb"), state)

    @contextmanager
    def _opened(self, head: DocumentHead) -> Iterator[int]:
        """Open the file where a document is from, if it has the size that it had then."""
        stored = self._catalog.document_text.file(head.id)
        if stored is None or (head.source == "upload" and not stored.stored):
            raise DocumentNotFoundError(_GONE)
        path, root = self._place(head, stored)
        try:
            with opened(path, root, self._limit_bytes) as number:
                if state_of(number).size_bytes != stored.size_bytes:
                    raise ConflictError(_CHANGED)
                yield number
        except ExtractionError as error:
            raise self._refusal(error.code) from error

    def _place(self, head: DocumentHead, stored: DocumentFile) -> tuple[Path, Path]:
        """Return where a file lies, and the folder that it must not leave."""
        if head.source == "upload":
            folder = self._uploads.folder(head.index_id)
            return folder / stored.stored, folder
        try:
            return Path(head.path), self._roots.root_of(head.path)
        except PathNotAllowedError as error:  # whose words tell where links lead
            raise PathNotAllowedError(_OUTSIDE) from error
        except (PathNotFoundError, InvalidRequestError) as error:  # an import's, of elsewhere
            raise DocumentNotFoundError(_GONE) from error

    def _refusal(self, code: str) -> EmbedserveError:
        if code == "outside_root":
            return PathNotAllowedError(_OUTSIDE)
        if code == "too_large":
            return TooLargeError(
                f"The original file is larger than {self._limit_bytes} bytes "
                "(EMBEDSERVE_MAX_ORIGINAL_BYTES), so it is not offered."
            )
        if code == "permission_denied":
            return ConflictError("The original file cannot be read by the server any more.")
        # Whatever was read had text, and was a regular file.
        return DocumentNotFoundError(_GONE) if code == "not_found" else ConflictError(_CHANGED)


_GONE = "The original file is no longer there; the next ingestion notices."
_CHANGED = "The original file has changed since it was read; the next ingestion reads it again."
_OUTSIDE = "The original file lies outside the folders that may be ingested, so it is not offered."


def _name(head: DocumentHead) -> str:
    return PurePosixPath(head.path).name or "document"
