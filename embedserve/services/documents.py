"""The documents of an index: sent, listed, deleted. What folders hold comes by jobs alone.

What is sent is stored first, durably, and then ingested by a job like any other.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from embedserve.errors import (
    ConflictError,
    DocumentNotFoundError,
    InvalidRequestError,
    TooLargeError,
)
from embedserve.services.document_names import check_metadata, check_name
from embedserve.services.filters import unknown_fields
from embedserve.services.index_worker import IndexWorker
from embedserve.services.indexes import IndexService
from embedserve.services.ingestion import IngestionService
from embedserve.services.viewing import check_may_change
from embedserve.store.catalog import Catalog
from embedserve.store.upload_files import NO_INDEX, Incoming, UploadFiles
from embedserve.types import (
    EVERY_DOCUMENT,
    FieldTest,
    Filter,
    Index,
    Job,
    ListedDocument,
    SourceKind,
    StoredUpload,
)

RETURNS: dict[SourceKind, str] = {
    "folder": "It is a file of a folder: the next ingestion of that folder brings it back, unless "
    "the file is deleted or excluded by a glob.",
    "url": "It was fetched from an address of the definition: the next ingestion brings it back, "
    "unless it is taken out of the definition.",
}


@dataclass(frozen=True)
class DocumentLimits:
    """What may be sent at once."""

    request_bytes: int
    """Of all files of a request together."""
    files: int
    metadata_bytes: int
    wait_s: float
    """How long a request may wait for its job."""


@dataclass
class Upload:
    """A document that is being sent; its bytes go to `file`."""

    name: str
    file: Incoming
    title: str = ""
    metadata: object = None
    """An object, None: none."""


def receive_apart(files: UploadFiles, name: str) -> Upload:
    """Begin to take a file for no index; raise InvalidRequestError.

    The caller closes it, whatever happens.
    """
    return Upload(check_name(name), files.open(NO_INDEX))


@dataclass(frozen=True)
class Deleted:
    """What was deleted."""

    documents: int
    warnings: tuple[str, ...]


class DocumentService:
    """Take, list and delete documents."""

    def __init__(
        self,
        catalog: Catalog,
        indexes: IndexService,
        ingestion: IngestionService,
        index_worker: IndexWorker,
        storage: tuple[UploadFiles, DocumentLimits],
    ) -> None:
        self._catalog = catalog
        self._indexes = indexes
        self._ingestion = ingestion
        self._worker = index_worker
        self._files, self.limits = storage

    def receive(self, index_name: str, name: str) -> Upload:
        """Begin to take a document; raise IndexNotFoundError or InvalidRequestError.

        The caller closes its file, whatever happens.
        """
        index = self._indexes.find_to_change(index_name)
        return Upload(check_name(name), self._files.open(index.id))

    def receive_text(self, index_name: str, text: str, name: str | None) -> Upload:
        """Take a text as a document; without a name it is named by its content."""
        if not text.strip():
            raise InvalidRequestError("`text` is empty: send what the document says.")
        try:
            content = text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError("`text` is not valid Unicode.") from error
        name = name or f"text-{hashlib.sha256(content).hexdigest()[:16]}.txt"
        upload = self.receive(index_name, name)
        try:
            upload.file.write(content)
        except BaseException:
            upload.file.close()
            raise
        return upload

    def accept(self, index_name: str, uploads: Sequence[Upload]) -> Job:
        """Store what was received and queue its job: from here on it is not lost.

        All of it, or nothing. Raises InvalidRequestError, TooLargeError, IndexNotFoundError.
        """
        index = self._indexes.find_to_change(index_name)
        if not uploads:
            raise InvalidRequestError(
                "The request holds no document: send files as multipart/form-data, or "
                '{"text": "…", "name": "…"} as JSON.'
            )
        self.check_count(len(uploads))
        names = [upload.name for upload in uploads]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise InvalidRequestError(f"The request holds `{twice}` twice; give it two names.")
        if any(upload.file.folder != self._files.folder(index.id) for upload in uploads):
            raise ConflictError(f"Index `{index_name}` was replaced meanwhile. Send it again.")
        metadata = [self._metadata(upload) for upload in uploads]
        stored: list[StoredUpload] = []
        try:
            for upload, text in zip(uploads, metadata, strict=True):
                place = upload.file.keep(upload.name)
                size = upload.file.size_bytes
                stored.append(StoredUpload(upload.name, place, size, upload.title, text))
            accepted = self._catalog.uploads.accept(index, stored)
        except BaseException:
            self._files.remove(index.id, [item.stored for item in stored])
            raise
        self._files.remove(index.id, accepted.replaced)
        self._ingestion.tell()
        return accepted.job

    def check_count(self, count: int) -> None:
        """Raise TooLargeError for more documents than one request may hold."""
        if count > self.limits.files:
            raise TooLargeError(
                f"The request holds more than {self.limits.files} documents "
                "(EMBEDSERVE_MAX_UPLOAD_FILES); send them in parts."
            )

    def check_size(self, size_bytes: int) -> None:
        """Raise TooLargeError for more bytes than the documents of one request may have."""
        if size_bytes > self.limits.request_bytes:
            raise TooLargeError(
                f"The request is larger than {self.limits.request_bytes} bytes "
                "(EMBEDSERVE_MAX_UPLOAD_BYTES); send it in parts."
            )

    def page(
        self, index_name: str, wanted: Filter, *, limit: int, offset: int
    ) -> list[ListedDocument]:
        """List documents by path, from every source: those that whoever asks may see."""
        sight = self._indexes.see(index_name)
        wanted = sight.among(wanted)
        return self._catalog.uploads.page(sight.index.id, wanted, limit=limit, offset=offset)

    def get(self, index_name: str, path: str) -> ListedDocument:
        """Return one document; raise DocumentNotFoundError."""
        for spelling in _spellings(path):
            wanted = FieldTest("path", "in", (spelling,))
            if found := self.page(index_name, wanted, limit=1, offset=0):
                return found[0]
        raise _missing(index_name, path)

    def sent(self, index_name: str, wanted: Filter, *, limit: int) -> list[ListedDocument]:
        """List documents to whoever may change them, who need not be one who may read them."""
        index = self._indexes.find_to_change(index_name)
        return self._catalog.uploads.page(index.id, wanted, limit=limit)

    def get_sent(self, index_name: str, path: str) -> ListedDocument:
        """Return one that was sent, as `sent` does; raise DocumentNotFoundError."""
        found = self.sent(index_name, FieldTest("path", "in", (path,)), limit=1)
        if not found:
            raise _missing(index_name, path)
        return found[0]

    def delete(self, index_name: str, path: str) -> Deleted:
        """Delete one document with its chunks, at once; raise DocumentNotFoundError."""
        index = self._indexes.find_to_change(index_name)
        for spelling in _spellings(path):
            removed = self._catalog.uploads.remove(index, spelling)
            if removed.documents:
                return self._after(index.id, removed.documents, removed.stored)
        raise _missing(index_name, path)

    def delete_matching(self, index_name: str, wanted: Filter) -> Deleted:
        """Delete every document that meets a filter, all of them or none."""
        if wanted == EVERY_DOCUMENT:
            raise InvalidRequestError(
                'The filter is empty. Name what to delete, or everything by {"paths": ["*"]}.'
            )
        index = self._indexes.find_to_change(index_name)
        unknown = unknown_fields(self._catalog, index.id, wanted)
        removed = self._catalog.uploads.remove_matching(index, wanted)
        deleted = self._after(index.id, removed.documents, removed.stored)
        return replace(deleted, warnings=(*unknown, *deleted.warnings))

    def delete_file(self, index: Index, glob: str) -> None:
        """Delete what matches a glob, be there any or not; raise ForbiddenError."""
        check_may_change(index)
        removed = self._catalog.uploads.remove_matching(index, FieldTest("path", "glob", (glob,)))
        if removed.documents:
            self._after(index.id, removed.documents, removed.stored)

    def waiting(self, job: Job) -> int:
        """Return how many documents a job has yet to take up."""
        index = self._indexes.find_to_change(job.index)
        return len(self._catalog.uploads.of_job(index.id, job.id))

    def pending(self, index_name: str) -> int:
        """Count the documents of an index that wait for their job, of those that may be seen."""
        sight = self._indexes.see(index_name)
        if not sight.is_partial:
            return self._catalog.uploads.count_pending(sight.index.id)
        waiting = FieldTest("status", "in", ("pending",))
        return self._catalog.uploads.count(sight.index.id, sight.among(waiting))

    def unknown_fields(self, index_name: str, wanted: Filter) -> tuple[str, ...]:
        """Name, in a sentence each, the metadata that a filter asks about and no document has."""
        sight = self._indexes.see(index_name)
        return () if sight.is_partial else unknown_fields(self._catalog, sight.index.id, wanted)

    def _after(
        self, index_id: int, documents: Sequence[ListedDocument], stored: Sequence[str]
    ) -> Deleted:
        self._files.remove(index_id, stored)
        self._worker.wake()
        kinds = sorted({document.source for document in documents})
        return Deleted(len(documents), tuple(RETURNS[kind] for kind in kinds if kind in RETURNS))

    def _metadata(self, upload: Upload) -> str:
        if upload.metadata is None:
            return json.dumps({})
        return check_metadata(upload.metadata, limit_bytes=self.limits.metadata_bytes)


def _spellings(path: str) -> list[str]:
    """Return what a path of an address may mean: there a file's leading slash is easily lost."""
    return [path, path.lstrip("/") if path.startswith("/") else f"/{path}"]


def _missing(index_name: str, path: str) -> DocumentNotFoundError:
    return DocumentNotFoundError(
        f"Index `{index_name}` has no document `{path[:200]}`. List its documents."
    )
