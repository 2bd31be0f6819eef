"""The addresses of an index's sources: listed, fetched, brought in step."""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

from embedserve.errors import ExtractionError
from embedserve.ingest.fetch import Fetched, Fetcher, GoneError
from embedserve.ingest.sitemap import is_sitemap_index, locations, unpacked
from embedserve.services.definitions import Source
from embedserve.services.file_problems import outcome_of, problem_of
from embedserve.services.found import Found
from embedserve.services.ingest_run import IngestRun, Task
from embedserve.services.interruption import Interruption
from embedserve.store.catalog import Catalog
from embedserve.types import FileProblem, FileResult, FoundFile, Index, Job, KnownFile, Provenance

MAX_SITEMAPS = 50
"""Of one source: an index of sitemaps names others."""
PAUSE_STEP_S = 0.2


@dataclass(frozen=True)
class UrlTools:
    """What addresses are fetched with."""

    catalog: Catalog
    fetcher: Fetcher
    max_urls: int
    """Of one index."""
    interruption: Interruption


@dataclass
class _Listed:
    urls: dict[str, bool] = field(default_factory=dict)
    """In order, none twice, with whether the job is about them."""
    problems: list[FileProblem] = field(default_factory=list)
    is_whole: bool = True
    """Whether every list could be read; else nothing is known to be gone."""


class UrlRun:
    """Bring one index in step with the addresses of its sources."""

    def __init__(self, tools: UrlTools, run: IngestRun, job: Job, index: Index) -> None:
        self._tools = tools
        self._catalog = tools.catalog
        self._run = run
        self._job = job
        self._index = index

    def run(self, sources: Sequence[Source], *, only: Collection[str] = ()) -> None:
        """Fetch every address; what no source lists any more is deleted.

        With `only`, the job is about these addresses and what these sitemaps list. Raises
        JobInterruptedError.
        """
        known = self._catalog.documents.known_addresses(self._index.id)
        listed = self._list(sources, only)
        if not listed.urls and not known and not listed.problems:
            return
        taken = self._catalog.uploads.paths(self._index.id)
        for url in [url for url in listed.urls if url in taken]:
            listed.problems.append(_is_upload(url))
            del listed.urls[url]
        self._note(listed.problems)
        gone = [path for path in known if path not in listed.urls and listed.is_whole]
        works = [partial(self._delete, path) for path in gone if not only or path in only]
        meant = [url for url, is_meant in listed.urls.items() if is_meant]
        works += [partial(self._bring, url, known.get(url)) for url in meant]
        self._run.carry_out_each([Task(0, work) for work in works])

    # -- which addresses ----------------------------------------------------------------------

    def _list(self, sources: Sequence[Source], only: Collection[str]) -> _Listed:
        listed = _Listed()
        for source in sources:
            for url in source.urls:
                self._add(listed, url, only)
            if source.sitemap:
                self._add_sitemaps(listed, source.sitemap, only)
        return listed

    def _add(self, listed: _Listed, url: str, only: Collection[str]) -> None:
        url = url.partition("#")[0]
        if url in listed.urls:
            listed.urls[url] |= not only
        elif len(listed.urls) < self._tools.max_urls:
            listed.urls[url] = not only or url in only
        elif listed.is_whole:
            listed.is_whole = False
            listed.problems.append(_too_many(url, self._tools.max_urls))

    def _add_sitemaps(self, listed: _Listed, first: str, only: Collection[str]) -> None:
        waiting, seen = [(first, only)], {first}
        while waiting:
            url, meant = waiting.pop(0)
            try:
                content = self._sitemap(url)
            except ExtractionError as error:
                listed.is_whole = False
                listed.problems.append(problem_of(url, error))
                continue
            # A list that could not be read before: the job is about all that it names.
            meant = () if url in meant else meant
            for found in locations(content):
                if not is_sitemap_index(content):
                    self._add(listed, found, meant)
                elif found not in seen and len(seen) < MAX_SITEMAPS:
                    seen.add(found)
                    waiting.append((found, meant))

    def _sitemap(self, url: str) -> bytes:
        try:
            with self._tools.fetcher.fetch(url, pause=self._pause) as fetched:
                content = unpacked(fetched.place.read_bytes() if fetched.place else b"")
        except (GoneError, ValueError) as error:
            words = "nothing is there" if isinstance(error, GoneError) else str(error)
            raise ExtractionError(
                "fetch_failed",
                f"Cannot read the sitemap `{url[:300]}`: {words}.",
                stage="fetch",
                hint="Its documents are kept as they are; correct or remove it in the definition.",
                is_retryable=True,
            ) from error
        return content

    def _note(self, problems: Sequence[FileProblem]) -> None:
        results = [FileResult(one.path, outcome_of(one), problem=one) for one in problems]
        self._catalog.jobs.record_files(self._job.id, results)

    # -- one address --------------------------------------------------------------------------

    def _bring(self, url: str, known: KnownFile | None) -> None:
        self._tools.interruption.check()
        before = known.provenance if known and not known.problem else Provenance("url")
        try:
            with self._tools.fetcher.fetch(
                url, etag=before.etag, last_modified=before.last_modified, pause=self._pause
            ) as fetched:
                self._take(url, known, fetched)
        except GoneError:
            self._note_gone(url, known)
        except ExtractionError as error:
            origin = known.provenance if known else Provenance("url")
            problem = problem_of(url, error)
            self._run.files.give_up(FoundFile(url, 0, mtime_ns=0), problem, origin)

    def _take(self, url: str, known: KnownFile | None, fetched: Fetched) -> None:
        if fetched.place is None:
            self._run.files.record_unchanged([known] if known else [])
            return
        origin = Provenance("url", etag=fetched.etag, last_modified=fetched.last_modified)
        file = FoundFile(url, fetched.size_bytes, mtime_ns=0)
        found = Found(file, fetched.place.parent, place=fetched.place, provenance=origin)
        self._catalog.jobs.expect_bytes(self._job.id, fetched.size_bytes)
        self._run.files.ingest(found, known)

    def _note_gone(self, url: str, known: KnownFile | None) -> None:
        if known:
            self._delete(url)
            return
        problem = FileProblem(
            url, "not_found", "fetch", "Nothing is there.", "Take it out of the definition."
        )
        self._note([problem])

    def _delete(self, path: str) -> None:
        self._catalog.documents.delete(self._index, path, job_id=self._job.id)

    def _pause(self, seconds: float) -> None:
        """Wait for a host's turn; raise JobInterruptedError when the job is to stop."""
        ends_at = time.monotonic() + seconds
        while (left_s := ends_at - time.monotonic()) > 0:
            self._tools.interruption.check()
            time.sleep(min(left_s, PAUSE_STEP_S))


def _is_upload(url: str) -> FileProblem:
    return FileProblem(
        url,
        "conflict",
        "fetch",
        "A document of this name was uploaded; it is kept.",
        hint="Delete the upload, or take the address out of the definition.",
    )


def _too_many(url: str, limit: int) -> FileProblem:
    return FileProblem(
        url,
        "too_many",
        "scan",
        f"The sources list more than {limit} addresses; this one and the rest are left out.",
        hint="Raise EMBEDSERVE_FETCH_MAX_URLS.",
    )
