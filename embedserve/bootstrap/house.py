"""The whole house: engine, catalog, vector index, jobs and routes.

Everything is started in order and stopped in the opposite order, whatever happens in between.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from embedserve.api.app import App, create_app
from embedserve.api.replies import Services
from embedserve.bootstrap.access import limits_of
from embedserve.bootstrap.chats import Chats, open_chats
from embedserve.bootstrap.documents import (
    document_limits,
    fetcher_of,
    open_extractors,
    watch_times,
)
from embedserve.bootstrap.engine import (
    Engine,
    load_default_model,
    open_engine,
    open_inference,
    open_probe,
)
from embedserve.bootstrap.search import Searched, open_sampler, open_search
from embedserve.errors import CatalogUnavailableError
from embedserve.ingest.extract import ExtractorPool
from embedserve.ingest.fetch import Fetcher
from embedserve.services.archives import ArchiveService
from embedserve.services.chat import ChatService
from embedserve.services.definitions import IndexDefinition, read_definitions
from embedserve.services.document_pages import DocumentPages
from embedserve.services.documents import DocumentService
from embedserve.services.extraction import ExtractionService
from embedserve.services.file_problems import retry_after_change
from embedserve.services.health import HealthService
from embedserve.services.index_check import IndexCheck
from embedserve.services.index_worker import IndexWorker
from embedserve.services.indexes import IndexService, IndexTools
from embedserve.services.ingestion import IngestionService
from embedserve.services.job_run import IngestTools
from embedserve.services.lexical_worker import LexicalWorker
from embedserve.services.originals import Originals
from embedserve.services.rebuild import RebuildService
from embedserve.services.recall_sample import RecallSampler
from embedserve.services.roots import AllowedRoots
from embedserve.services.sent_files import FileService
from embedserve.services.watching import WatchService
from embedserve.settings import Settings
from embedserve.store.catalog import Catalog
from embedserve.store.chroma_process import ChromaProcess
from embedserve.store.home_lock import HomeLock
from embedserve.store.late_vector_index import LateVectorIndex
from embedserve.store.upload_files import NO_INDEX, UploadFiles

logger = logging.getLogger(__name__)

WAITING_FILES = 14
"""Files of a job whose texts the engine has while others are read."""
ASKED_S = 5.0
"""Seconds that Chroma may take to answer a question of a request: it takes milliseconds when it is
well, and after one that failed none are asked until it is."""
CLEAN_STOP = "clean_stop"
"""Catalog mark: the last owner stopped in order, so the vector index need not be checked. Not set
where something was to be checked still, nor where Chroma ended otherwise."""


@dataclass(frozen=True)
class House:
    """Everything, running."""

    app: App
    services: Services
    lock: HomeLock


@dataclass(frozen=True)
class _Sources:
    """What indexes are fed from and who answers from them, as the settings say it."""

    definitions: Mapping[str, IndexDefinition]
    roots: AllowedRoots
    notices: dict[str, str]
    """By index, what a user has to know of its watch."""
    uploads: UploadFiles
    fetcher: Fetcher
    chats: Chats


@dataclass(frozen=True)
class _IndexSide:
    """The vector index, what keeps it in step, and its process where it is ours."""

    stored: LateVectorIndex
    """As the worker uses it: a large index may be busy for long."""
    asked: LateVectorIndex
    """As requests use it, which have the catalog's exact answer instead."""
    worker: IndexWorker
    chroma: ChromaProcess | None

    def stop(self) -> bool:
        """Stop in order; tell whether the vector index holds what the catalog believes."""
        self.worker.stop()
        has_ended_in_order = self.chroma is None or self.chroma.stop()
        return has_ended_in_order and not self.worker.has_doubts()


@dataclass(frozen=True)
class _Ground:
    """What services stand on."""

    settings: Settings
    engine: Engine
    catalog: Catalog
    index: _IndexSide
    sources: _Sources


@contextmanager
def open_house(
    settings: Settings, *, runs_jobs: bool = True, watches: bool = False
) -> Iterator[House]:
    """Start every part; raise HomeLockedError, CatalogError, DefinitionError or StartupError.

    A house that runs no jobs leaves unfinished ones as they are. One that `watches` starts jobs for
    the indexes whose definition says so.
    """
    limits = limits_of(settings)
    chats = open_chats(settings, keeps_keys=bool(limits.keys))
    with ExitStack() as stack:
        lock = stack.enter_context(HomeLock(settings.home))
        engine = stack.enter_context(open_engine(settings))
        catalog = stack.enter_context(Catalog(settings.home / "catalog.sqlite3"))
        is_unclean = catalog.get_meta(CLEAN_STOP) == "no"
        catalog.set_meta(CLEAN_STOP, "no")
        index = _start_index(settings, catalog, stack, is_unclean=is_unclean)
        load_default_model(engine.encoders, settings.default_model)
        sources = _sources(settings, catalog, chats)
        services = _services(_Ground(settings, engine, catalog, index, sources), stack)
        watch = WatchService(
            catalog, services.ingestion, sources.roots, watch_times(settings), sources.notices
        )
        lexical = LexicalWorker(catalog)
        lexical.start()
        stack.callback(lexical.stop)
        if runs_jobs:
            services.ingestion.start()
        if watches:
            watch.start()
        stack.callback(services.ingestion.stop)
        stack.callback(watch.stop)
        viewers = replace(limits.viewers, owner_key=lock.key)
        app = create_app(services, replace(limits, viewers=viewers))
        yield House(app, services, lock)
        # Reached only when nothing went wrong: after an error the next start checks the index.
        watch.stop()
        services.ingestion.stop()
        if index.stop():
            _note_clean_stop(catalog)


def _note_clean_stop(catalog: Catalog) -> None:
    try:
        catalog.set_meta(CLEAN_STOP, "yes")
    except CatalogUnavailableError as error:
        logger.warning("the next start compares the vector index with the catalog: %s", error)


def _start_index(
    settings: Settings, catalog: Catalog, stack: ExitStack, *, is_unclean: bool
) -> _IndexSide:
    """Start the vector index, ours or somebody's, and the worker that keeps it in step."""
    chroma: ChromaProcess | None = None

    def url() -> str:
        return chroma.url if chroma else str(settings.chroma_url)

    prefix, timeout_s = f"embedserve-{catalog.id}", settings.chroma_timeout_s
    stored = LateVectorIndex("chroma", url, timeout_s=timeout_s, prefix=prefix)
    asked = LateVectorIndex("chroma", url, timeout_s=min(ASKED_S, timeout_s), prefix=prefix)
    if catalog.indexes.all():
        asked.load()
    # Before Chroma is started, which may tell the worker at once that it was lost.
    worker = IndexWorker(catalog, stored)
    if not settings.chroma_url:
        chroma = ChromaProcess(
            settings.home / "chroma",
            settings.home / "chroma.log",
            timeout_s=settings.chroma_timeout_s,
            on_restart=lambda *, was_emptied: worker.wake(check=True),
            on_lost=lambda: worker.wake(check=True),
        )
        worker.on_refusal = chroma.renew
        stack.callback(chroma.stop)
        chroma.start()
    stack.callback(stored.close)
    stack.callback(asked.close)
    # A Chroma that others run may have been changed while we were away.
    worker.start(check=is_unclean or bool(settings.chroma_url))
    stack.callback(worker.stop)
    return _IndexSide(stored, asked, worker, chroma)


def _sources(settings: Settings, catalog: Catalog, chats: Chats) -> _Sources:
    definitions = read_definitions(settings.definitions) if settings.definitions else {}
    paths = [Path(item.path) for one in definitions.values() for item in one.sources if item.path]
    roots = AllowedRoots([*settings.ingest_roots, *paths])
    uploads = UploadFiles(settings.home / "uploads", limit_bytes=settings.max_file_bytes)
    uploads.sweep({**catalog.uploads.stored(), NO_INDEX: catalog.files.stored()})
    fetcher = fetcher_of(settings)
    fetcher.sweep()
    return _Sources(definitions, roots, {}, uploads, fetcher, chats)


def _services(ground: _Ground, stack: ExitStack) -> Services:
    settings, engine, catalog = ground.settings, ground.engine, ground.catalog
    asked, worker, uploads = ground.index.asked, ground.index.worker, ground.sources.uploads
    searched = Searched(catalog, asked, worker, engine.encoders)
    sampler = open_sampler(settings, searched, engine.metrics, stack)
    indexes = _indexes(ground, sampler)
    extractors = open_extractors(settings, stack)
    retry_after_change(catalog, extractors.identity)
    inference = open_inference(settings, engine, stack)
    tools = _ingest_tools(ground, extractors)
    ingestion = IngestionService(catalog, indexes, engine.encoders, tools)
    limits = document_limits(settings)
    documents = DocumentService(catalog, indexes, ingestion, worker, (uploads, limits))
    search = open_search(settings, searched, indexes, inference.reranking, sampler, stack)
    pages, chats = DocumentPages(catalog, settings.signed_link_s), ground.sources.chats
    return Services(
        embedding=inference.embedding,
        reranking=inference.reranking,
        models=engine.models,
        indexes=indexes,
        ingestion=ingestion,
        search=search,
        chat=ChatService(indexes, search, pages, chats.upstreams, chats.options),
        checks=IndexCheck(catalog, ground.index.stored, indexes, worker, engine.encoders),
        rebuilds=RebuildService(catalog, indexes, worker),
        archives=_archives(ground, indexes),
        documents=documents,
        files=FileService(catalog, uploads, documents),
        pages=pages,
        originals=Originals(
            *(catalog, ground.sources.roots, uploads), limit_bytes=settings.max_original_bytes
        ),
        extraction=ExtractionService(extractors, uploads, max_text_chars=settings.max_text_chars),
        health=HealthService(catalog, asked, worker, open_probe(settings, engine, stack)),
        metrics=engine.metrics,
        freed=engine.encoders.freed,
    )


def _indexes(ground: _Ground, sampler: RecallSampler) -> IndexService:
    index, sources = ground.index, ground.sources
    tools = IndexTools(
        *(index.worker, sources.roots, sources.uploads, sources.notices, sampler),
        default_model=ground.settings.default_model,
    )
    indexes = IndexService(ground.catalog, index.asked, ground.engine.encoders, tools)
    indexes.apply(sources.definitions)
    return indexes


def _archives(ground: _Ground, indexes: IndexService) -> ArchiveService:
    return ArchiveService(
        *(ground.catalog, indexes, ground.engine.encoders, ground.index.worker),
        spool=(ground.settings.home, ground.settings.max_archive_bytes),
    )


def _ingest_tools(ground: _Ground, extractors: ExtractorPool) -> IngestTools:
    settings, sources = ground.settings, ground.sources
    return IngestTools(
        extractors,
        ground.index.worker,
        sources.roots,
        sources.uploads,
        sources.fetcher,
        max_files=settings.max_source_files,
        max_urls=settings.fetch_max_urls,
        jobs=settings.ingest_jobs,
        # Many more than extractors: most wait for the engine, which is fastest with many texts.
        files_at_once=settings.extract_workers + WAITING_FILES,
    )
