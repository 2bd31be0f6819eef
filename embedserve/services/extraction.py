"""The text of a file that is sent for its text alone: read in the jail, kept nowhere."""

from dataclasses import replace

from embedserve.errors import ExtractionError, TooLargeError
from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.worker_process import never
from embedserve.services.documents import Upload, receive_apart
from embedserve.services.file_problems import SKIPPED_CODES
from embedserve.services.found import Found
from embedserve.services.kept_files import read_kept
from embedserve.store.upload_files import NO_INDEX, UploadFiles
from embedserve.types import Extraction, FoundFile

NOTHING = "No extractable text"
"""How the error begins for a file without text: clients go on without it then."""


class ExtractionService:
    """Read files for others."""

    def __init__(
        self, extractors: ExtractorPool, files: UploadFiles, *, max_text_chars: int
    ) -> None:
        self._extractors = extractors
        self._files = files
        self._max_text_chars = max_text_chars

    def receive(self, name: str) -> Upload:
        """Begin to take a file; see `receive_apart`."""
        return receive_apart(self._files, name)

    def read(self, upload: Upload) -> Extraction:
        """Return the text of what was received, and forget the file.

        Raises ExtractionError, whose message says what to do, and TooLargeError.
        """
        stored = upload.file.keep(upload.name)
        try:
            folder = self._files.folder(NO_INDEX)
            file = FoundFile(upload.name, upload.file.size_bytes, mtime_ns=0)
            found = Found(file, folder, place=folder / stored, title=upload.title)
            return self._whole(read_kept(self._extractors, found, is_abandoned=never))
        except ExtractionError as error:
            raise _told(error) from error
        finally:
            self._files.remove(NO_INDEX, [stored])

    def _whole(self, extraction: Extraction) -> Extraction:
        """Return the extraction with its text in one piece, also of a long one."""
        if extraction.long_text is None:
            return extraction
        long_text = extraction.long_text
        try:
            if long_text.length > self._max_text_chars:
                raise TooLargeError(
                    f"The text has {long_text.length} characters; {self._max_text_chars} can be "
                    "given at once (EMBEDSERVE_MAX_TEXT_CHARS)."
                )
            return replace(extraction, text="".join(long_text.pieces()), long_text=None)
        finally:
            long_text.close()


def _told(error: ExtractionError) -> ExtractionError:
    """Return an error with its hint in its message."""
    begin = f"{NOTHING}: " if error.code in SKIPPED_CODES else ""
    return ExtractionError(
        error.code,
        f"{begin}{error.message} {error.hint}".strip(),
        stage=error.stage,
        is_retryable=error.is_retryable,
    )
