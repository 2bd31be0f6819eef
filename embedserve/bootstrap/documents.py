"""Settings to what documents are read, taken, fetched and watched with."""

from contextlib import ExitStack

from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.fetch import Fetcher, FetchLimits
from embedserve.ingest.limits import ExtractLimits
from embedserve.ingest.scratch import Scratch
from embedserve.ingest.tessdata import language_folder
from embedserve.services.documents import DocumentLimits
from embedserve.services.watching import WatchTimes
from embedserve.settings import Settings


def open_extractors(settings: Settings, stack: ExitStack) -> ExtractorPool:
    """Return what reads files, closed with `stack`; sweep what a former life left behind."""
    scratch = Scratch(settings.home)
    scratch.sweep()
    extractors = ExtractorPool(
        settings.extract_workers,
        ExtractLimits(
            timeout_s=settings.extract_timeout_s,
            memory_bytes=settings.extract_memory_bytes,
            max_file_bytes=settings.max_file_bytes,
            max_text_chars=settings.max_text_chars,
            max_stream_bytes=settings.max_stream_bytes,
            stream_above_bytes=settings.stream_above_bytes,
            max_nesting=settings.max_nesting,
            archive_members=settings.archive_members,
            archive_bytes=settings.archive_bytes,
            archive_ratio=settings.archive_ratio,
            archive_depth=settings.archive_depth,
            ocr_languages=settings.ocr_languages,
            tessdata=language_folder(settings.ocr_languages, settings.tessdata),
        ),
        scratch,
        spool=settings.home,
    )
    stack.callback(extractors.close)
    return extractors


def fetcher_of(settings: Settings) -> Fetcher:
    """Return what fetches the addresses of sources."""
    return Fetcher(
        settings.home / "fetched",
        FetchLimits(
            max_bytes=settings.max_file_bytes,
            timeout_s=settings.fetch_timeout_s,
            delay_s=settings.fetch_delay_s,
            allows_private=settings.fetch_private,
        ),
    )


def document_limits(settings: Settings) -> DocumentLimits:
    """Return what one request may send."""
    return DocumentLimits(
        request_bytes=settings.max_upload_bytes,
        files=settings.max_upload_files,
        metadata_bytes=settings.max_metadata_bytes,
        wait_s=settings.upload_wait_s,
    )


def watch_times(settings: Settings) -> WatchTimes:
    """Return when a watch acts."""
    return WatchTimes(
        settle_s=settings.watch_settle_s,
        rescan_s=settings.watch_rescan_s,
        fallback_s=settings.watch_fallback_s,
    )
