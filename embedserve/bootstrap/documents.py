"""Settings to what documents are taken, fetched and watched with."""

from embedserve.ingest.fetch import Fetcher, FetchLimits
from embedserve.services.documents import DocumentLimits
from embedserve.services.watching import WatchTimes
from embedserve.settings import Settings


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
