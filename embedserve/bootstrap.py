"""Settings to a running house: the one place where the parts meet.

Everything is started in order and stopped in the opposite order, whatever happens in between.
"""

import contextlib
import ctypes
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from embedserve.api.app import App, AppLimits, create_app
from embedserve.api.replies import Services
from embedserve.engine.cache import VectorCache
from embedserve.engine.cores import available_cores
from embedserve.engine.lanes import BatchTokens
from embedserve.engine.scheduler import Scheduler
from embedserve.errors import EmbedserveError, StartupError
from embedserve.ingest.extract import ExtractLimits, ExtractorPool
from embedserve.services.definitions import read_definitions
from embedserve.services.embedding import EmbeddingService, EmbedLimits
from embedserve.services.encoders import Encoders
from embedserve.services.engine_probe import EngineProbe
from embedserve.services.health import HealthService
from embedserve.services.index_worker import IndexWorker
from embedserve.services.indexes import IndexService, IndexTools
from embedserve.services.ingestion import IngestionService, IngestTools
from embedserve.services.machine import Machine, resolve_device
from embedserve.services.metrics import Metrics
from embedserve.services.model_library import ModelLibrary
from embedserve.services.residency import Residency
from embedserve.services.roots import AllowedRoots
from embedserve.services.search import SearchService
from embedserve.settings import Settings
from embedserve.store.catalog import Catalog
from embedserve.store.chroma_process import ChromaProcess
from embedserve.store.home_lock import HomeLock
from embedserve.store.vector_index import VECTOR_INDEXES, VectorIndex

logger = logging.getLogger(__name__)

M_ARENA_MAX = -8
"""glibc's malloc.h."""
CLEAN_STOP = "clean_stop"
"""Catalog mark: the last owner stopped in order, so the vector index need not be checked."""


@dataclass(frozen=True)
class Engine:
    """The part that embeds; it needs neither catalog nor lock."""

    scheduler: Scheduler
    encoders: Encoders
    models: ModelLibrary
    metrics: Metrics


@dataclass(frozen=True)
class House:
    """Everything, running."""

    app: App
    services: Services
    lock: HomeLock


@contextmanager
def open_engine(settings: Settings) -> Iterator[Engine]:
    """Start the part that embeds."""
    # Texts are tokenized on our own threads; the tokenizer's pool would fight them for cores.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # onnxruntime would write a device id under the home of its user and look up a collector.
    # It reads this when it is first imported, which is when the first model is loaded.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    _limit_malloc_arenas()
    folder = settings.home / "models"
    metrics = Metrics()
    device = resolve_device(settings.device)
    scheduler = Scheduler(
        workers=settings.threads or available_cores(),
        batch_tokens=BatchTokens(settings.micro_batch_tokens, settings.bulk_batch_tokens),
        queue_tokens=settings.queue_tokens,
        queue_s=settings.queue_s,
        worker_timeout_s=settings.worker_timeout_s,
        report=metrics.count_batch,
    )
    encoders = Encoders(
        folder,
        scheduler,
        device=device,
        default_model=settings.default_model,
        residency=Residency(settings.keep_alive_s, settings.models_memory_bytes),
    )
    models = ModelLibrary(folder, encoders, Machine(device, scheduler.workers))
    try:
        yield Engine(scheduler, encoders, models, metrics)
    finally:
        models.close()
        encoders.close()
        scheduler.close()


@contextmanager
def open_house(settings: Settings, *, runs_jobs: bool = True) -> Iterator[House]:
    """Start every part; raise HomeLockedError, CatalogError, DefinitionError or StartupError.

    A house that runs no jobs leaves unfinished ones as they are.
    """
    with ExitStack() as stack:
        lock = stack.enter_context(HomeLock(settings.home))
        engine = stack.enter_context(open_engine(settings))
        catalog = stack.enter_context(Catalog(settings.home / "catalog.sqlite3"))
        is_unclean = catalog.get_meta(CLEAN_STOP) == "no"
        catalog.set_meta(CLEAN_STOP, "no")
        index = _start_index(settings, catalog, stack, is_unclean=is_unclean)
        _load_default_model(engine.encoders, settings.default_model)
        services = _services(settings, engine, catalog, index, stack)
        if runs_jobs:
            services.ingestion.start()
        stack.callback(services.ingestion.stop)
        app = create_app(services, _limits(settings))
        yield House(app, services, lock)
        # Reached only when nothing went wrong: after an error the next start checks the index.
        services.ingestion.stop()
        index[1].stop()
        catalog.set_meta(CLEAN_STOP, "yes")


def listen(host: str, port: int) -> socket.socket:
    """Bind the address before anything heavy starts; raise StartupError that says what to do."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise StartupError(f"Host `{host}` is not an address: {error.strerror}.") from error
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise StartupError(
            f"Port {port} on {host} cannot be used ({error.strerror}). "
            + (
                "Ollama itself usually sits there; choose another: `--port 11435`."
                if port == 11434
                else "Choose another with `--port`."
            )
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address that a client on this machine uses for a listening socket."""
    host, port = listener.getsockname()[:2]
    # "Every address" is no address to call; loopback reaches it.
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _limit_malloc_arenas() -> None:
    """Let all threads share two of glibc's heaps.

    By default each thread may get its own, and what a large document leaves behind in one is of
    no use to the others: 276 MB instead of 246 MB after ingesting 440 mixed files.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)


def _start_index(
    settings: Settings, catalog: Catalog, stack: ExitStack, *, is_unclean: bool
) -> tuple[VectorIndex, IndexWorker]:
    """Start the vector index, ours or somebody's, and the worker that keeps it in step."""
    chroma: ChromaProcess | None = None

    def url() -> str:
        return chroma.url if chroma else str(settings.chroma_url)

    vector_index = VECTOR_INDEXES.load("chroma")(
        url, timeout_s=settings.chroma_timeout_s, prefix=f"embedserve-{catalog.id}"
    )
    # Before Chroma is started, which may tell the worker at once that it was lost.
    worker = IndexWorker(catalog, vector_index)
    if not settings.chroma_url:
        chroma = ChromaProcess(
            settings.home / "chroma",
            settings.home / "chroma.log",
            timeout_s=settings.chroma_timeout_s,
            on_restart=lambda *, was_emptied: worker.wake(check=True),
            on_lost=lambda: worker.wake(check=True),
        )
        stack.callback(chroma.stop)
        chroma.start()
    stack.callback(vector_index.close)
    # A Chroma that others run may have been changed while we were away.
    worker.start(check=is_unclean or bool(settings.chroma_url))
    stack.callback(worker.stop)
    return vector_index, worker


def _services(
    settings: Settings,
    engine: Engine,
    catalog: Catalog,
    index: tuple[VectorIndex, IndexWorker],
    stack: ExitStack,
) -> Services:
    vector_index, worker = index
    definitions = read_definitions(settings.definitions) if settings.definitions else {}
    sources = [Path(item.path) for one in definitions.values() for item in one.sources]
    roots = AllowedRoots([*settings.ingest_roots, *sources])
    indexes = IndexService(
        catalog,
        vector_index,
        engine.encoders,
        IndexTools(worker, roots, default_model=settings.default_model),
    )
    indexes.apply(definitions)
    tools = IngestTools(
        _extractors(settings, stack),
        worker,
        roots,
        jobs=settings.ingest_jobs,
        # More files than extractors: the engine stays busy while the next ones are read.
        files_at_once=settings.extract_workers + 2,
    )
    return Services(
        embedding=_embedding(settings, engine, stack),
        models=engine.models,
        indexes=indexes,
        ingestion=IngestionService(catalog, indexes, engine.encoders, tools),
        search=SearchService(catalog, indexes, vector_index, worker, engine.encoders),
        health=HealthService(catalog, vector_index, worker, _probe(settings, engine, stack)),
        metrics=engine.metrics,
    )


def _embedding(settings: Settings, engine: Engine, stack: ExitStack) -> EmbeddingService:
    cache = VectorCache(settings.cache_bytes)
    engine.metrics.watch(engine.scheduler, cache, engine.encoders)
    limits = EmbedLimits(
        small_request_tokens=settings.small_request_tokens,
        max_texts=settings.max_request_texts,
        max_text_bytes=settings.max_text_bytes,
        timeout_s=settings.request_timeout_s,
    )
    service = EmbeddingService(engine.encoders, cache, limits, threads=engine.scheduler.workers)
    stack.callback(service.close)
    return service


def _probe(settings: Settings, engine: Engine, stack: ExitStack) -> EngineProbe:
    probe = EngineProbe(
        engine.scheduler,
        engine.encoders,
        default_model=settings.default_model,
        timeout_s=settings.ready_timeout_s,
    )
    stack.callback(probe.close)
    return probe


def _extractors(settings: Settings, stack: ExitStack) -> ExtractorPool:
    extractors = ExtractorPool(
        settings.extract_workers,
        ExtractLimits(
            timeout_s=settings.extract_timeout_s,
            memory_bytes=settings.extract_memory_bytes,
            max_file_bytes=settings.max_file_bytes,
            max_text_chars=settings.max_text_chars,
        ),
    )
    stack.callback(extractors.close)
    return extractors


def _limits(settings: Settings) -> AppLimits:
    return AppLimits(
        max_request_bytes=settings.max_request_bytes,
        allowed_origins=settings.allowed_origins,
        is_loopback=settings.host in ("127.0.0.1", "::1", "localhost"),
    )


def _load_default_model(encoders: Encoders, name: str) -> None:
    try:
        encoders.get(name)
    except EmbedserveError as error:
        # The server starts all the same: it is how other models, or this one, get pulled.
        logger.warning("no default model, so /ready stays at 503: %s", error)
