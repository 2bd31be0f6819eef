"""Why a file gave no chunks, in the words that the catalog keeps."""

import logging

from embedserve.errors import EmbedserveError, ExtractionError
from embedserve.store.catalog import Catalog
from embedserve.types import FileProblem, Outcome

logger = logging.getLogger(__name__)

READER_MARK = "reader"
"""Catalog mark: the reader whose problems it holds; see `ExtractorPool.identity`."""
_STAGES_OF_READING = ("open", "extract", "chunk")
SKIPPED_CODES = frozenset({"empty_file", "no_text", "scanned", "encrypted", "unsupported"})


def outcome_of(problem: FileProblem) -> Outcome:
    """Nothing to index is `skipped`; something wrong with the file is `failed`."""
    return "skipped" if problem.code in SKIPPED_CODES else "failed"


def retry_after_change(catalog: Catalog, reader: str) -> None:
    """Have files that gave no text read again, when another reader or other limits said so.

    A problem is kept with the size and time of its file; without this, nobody who follows its
    hint and raises a limit would see a change.
    """
    if catalog.get_meta(READER_MARK) == reader:
        return
    if count := catalog.documents.retry_problems(_STAGES_OF_READING):
        logger.info("the reader has changed: %d file(s) without text will be read again", count)
    catalog.set_meta(READER_MARK, reader)


def problem_of(path: str, error: ExtractionError) -> FileProblem:
    """Return an extraction error as the row that the catalog keeps."""
    return FileProblem(path, error.code, error.stage, error.message, error.hint, error.is_retryable)


def unexpected(path: str, error: Exception) -> FileProblem:
    """Return the row for a failure that is not the file's own; the next run tries it again."""
    message = error.message if isinstance(error, EmbedserveError) else type(error).__name__
    return FileProblem(
        path,
        "internal_error",
        "ingest",
        f"Unexpected failure: {message}",
        hint="The server's log has the details; the next run tries again.",
        is_retryable=True,
    )


def missing_source(path: str) -> FileProblem:
    """Return the row for a source that is not there."""
    return FileProblem(
        path,
        "missing_source",
        "scan",
        "This source does not exist; its documents are kept as they are.",
        hint="Mount or restore it, or take it out of the definition.",
        is_retryable=True,
    )


def too_many_files(path: str, limit: int) -> FileProblem:
    """Return the row for a folder of which the rest was not looked at, nor deleted."""
    return FileProblem(
        path,
        "too_many",
        "scan",
        f"The job takes {limit} files; the rest of this folder is left as it is.",
        hint="Exclude what is not meant, or raise EMBEDSERVE_MAX_SOURCE_FILES.",
        is_retryable=True,
    )
