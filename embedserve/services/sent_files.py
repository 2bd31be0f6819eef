"""Files that are sent first and put into indexes later: kept here, copied there.

A copy is a document like any other, whose path begins with the id of its file.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from embedserve.errors import DocumentNotFoundError, InvalidRequestError, TooLargeError
from embedserve.services.documents import DocumentService, Upload, receive_apart
from embedserve.services.viewing import check_may_change, is_ruled, may_change, sight_of
from embedserve.store.catalog import Catalog
from embedserve.store.database import now
from embedserve.store.upload_files import NO_INDEX, UploadFiles
from embedserve.types import FieldTest, Index, Job, SentFile

MAX_PURPOSE_CHARS = 100
BLOCK_BYTES = 256 * 1024
_FILE_ID = re.compile(r"file-[0-9a-f]{24}")
_PATH = re.compile(rf"({_FILE_ID.pattern})/(.+)", re.DOTALL)
_DOCUMENT_ID = re.compile(r"doc-([1-9][0-9]{0,17})")


@dataclass(frozen=True)
class Attachment:
    """A file that an index is to have, and what is to be said of it there."""

    file_id: str
    attributes: object = None
    """An object, None: nothing."""


@dataclass(frozen=True)
class FileName:
    """What a document is called among files."""

    id: str
    name: str


def file_name_of(document_id: int | None, path: str) -> FileName:
    """Return the id and name of a document as a file; those that came otherwise have some too."""
    match = _PATH.fullmatch(path)
    if match:
        return FileName(match[1], match[2])
    return FileName(f"doc-{document_id}", path.rpartition("/")[2])


def filter_of_file(file_id: str) -> dict[str, object]:
    """Return the filter that the document of a file meets, as JSON; raise DocumentNotFoundError."""
    if match := _DOCUMENT_ID.fullmatch(file_id):
        return {"ids": [int(match[1])]}
    if _FILE_ID.fullmatch(file_id):
        return {"paths": [_copies(file_id)]}
    raise _missing(file_id)


def _copies(file_id: str) -> str:
    """Return a glob for what a file is called in the indexes that it was given to."""
    return f"{file_id}/*"


class FileService:
    """Keep files, and give them to indexes."""

    def __init__(self, catalog: Catalog, files: UploadFiles, documents: DocumentService) -> None:
        self._catalog = catalog
        self._files = files
        self._documents = documents

    def receive(self, name: str) -> Upload:
        """Begin to take a file; see `receive_apart`."""
        return receive_apart(self._files, name)

    def keep(self, upload: Upload, purpose: str) -> SentFile:
        """Keep what was received: from here on it is not lost."""
        if len(purpose) > MAX_PURPOSE_CHARS:
            raise InvalidRequestError(f"`purpose` has {MAX_PURPOSE_CHARS} characters at most.")
        stored = upload.file.keep(upload.name)
        size = upload.file.size_bytes
        file = SentFile(f"file-{uuid4().hex[:24]}", upload.name, purpose, stored, size, now())
        try:
            self._catalog.files.add(file)
        except BaseException:
            self._files.remove(NO_INDEX, [stored])
            raise
        return file

    def get(self, file_id: str) -> SentFile:
        """Return one; raise DocumentNotFoundError."""
        found = self._catalog.files.get(file_id)
        if found is None or not self._is_seen(file_id, self._protected()):
            raise _missing(file_id)
        return found

    def _protected(self) -> list[Index]:
        return [index for index in self._catalog.indexes.all() if is_ruled(index)]

    def _is_seen(self, file_id: str, protected: Sequence[Index]) -> bool:
        """Tell whether whoever asks may see a file: one that is in protected indexes, in one."""
        copies = FieldTest("path", "glob", (_copies(file_id),))
        holding = [one for one in protected if self._catalog.uploads.count(one.id, copies)]
        return not holding or any(
            may_change(one) or self._catalog.uploads.count(one.id, sight_of(one).among(copies))
            for one in holding
        )

    def page(
        self, *, limit: int, after: str, purpose: str, is_newest_first: bool
    ) -> list[SentFile]:
        """List files by when they came; `after` is the id of the last of the former page."""
        if after:
            self.get(after)
        protected = self._protected()
        shown: list[SentFile] = []
        while len(shown) < limit:
            found = self._catalog.files.page(
                limit=limit, after=after, purpose=purpose, is_newest_first=is_newest_first
            )
            shown += [file for file in found if self._is_seen(file.id, protected)]
            if len(found) < limit:
                break
            after = found[-1].id
        return shown[:limit]

    def blocks(self, file: SentFile) -> Iterator[bytes]:
        """Give the bytes of a file; raise DocumentNotFoundError when it went meanwhile."""
        try:
            content = self._place(file).open("rb")
        except FileNotFoundError as error:
            raise _missing(file.id) from error
        with content:
            while block := content.read(BLOCK_BYTES):
                yield block

    def delete(self, file_id: str) -> None:
        """Forget a file, and take its copies out of every index; raise ForbiddenError."""
        self.get(file_id)
        copies = FieldTest("path", "glob", (_copies(file_id),))
        for index in self._protected():
            if self._catalog.uploads.count(index.id, copies):
                check_may_change(index)
        stored = self._catalog.files.remove(file_id)
        if stored is None:
            raise _missing(file_id)
        self._files.remove(NO_INDEX, [stored])
        for index in self._catalog.indexes.all():
            self._documents.delete_file(index, _copies(file_id))

    def attach(self, index: str, attachments: Sequence[Attachment]) -> Job:
        """Copy files into an index and queue their job: all of them, or nothing.

        Raises IndexNotFoundError, DocumentNotFoundError, InvalidRequestError, TooLargeError.
        """
        self._documents.check_count(len(attachments))
        files = [self.get(one.file_id) for one in attachments]
        if sum(file.size_bytes for file in files) > self._documents.limits.request_bytes:
            raise TooLargeError(
                f"These files have more than {self._documents.limits.request_bytes} bytes "
                "(EMBEDSERVE_MAX_UPLOAD_BYTES); attach them in parts."
            )
        with ExitStack() as stack:
            uploads = []
            for file, one in zip(files, attachments, strict=True):
                upload = self._documents.receive(index, f"{file.id}/{file.name}")
                stack.callback(upload.file.close)
                for block in self.blocks(file):
                    upload.file.write(block)
                upload.metadata = one.attributes
                uploads.append(upload)
            return self._documents.accept(index, uploads)

    def _place(self, file: SentFile) -> Path:
        return self._files.folder(NO_INDEX) / file.stored


def _missing(file_id: str) -> DocumentNotFoundError:
    return DocumentNotFoundError(f"There is no file `{file_id[:100]}`. List the files.")
