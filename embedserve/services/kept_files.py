"""Files that are kept for an index under names of our own: uploads, and what was fetched."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from embedserve.errors import ExtractionError
from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.worker_process import IsAbandoned
from embedserve.services.found import Found
from embedserve.types import Extraction, FoundFile, Provenance, StoredUpload


def kept_files(folder: Path, uploads: Iterable[StoredUpload]) -> list[Found]:
    """Return uploads as files to ingest."""
    return [
        Found(
            # Uploads have no time of change: each new version has a file of its own.
            FoundFile(upload.path, upload.size_bytes, mtime_ns=0),
            folder,
            place=folder / upload.stored,
            title=upload.title,
            provenance=Provenance("upload", upload.metadata, stored=upload.stored),
        )
        for upload in uploads
    ]


def read_kept(extractors: ExtractorPool, found: Found, *, is_abandoned: IsAbandoned) -> Extraction:
    """Read a file at its `place`, and speak of it by its path; raise ExtractionError."""
    place, path = found.place or Path(found.file.path), found.file.path
    try:
        extraction = extractors.extract(place, place.parent, is_abandoned=is_abandoned)
    except ExtractionError as error:
        raise ExtractionError(
            error.code,
            error.message.replace(str(place), path),
            stage=error.stage,
            hint=error.hint,
            is_retryable=error.is_retryable,
        ) from error
    title = found.title
    if not title and extraction.title in (place.stem, place.name):
        name = PurePosixPath(path)
        is_whole = "://" in path or extraction.title == place.name
        title = name.name if is_whole else name.stem
    return replace(extraction, title=title or extraction.title)
