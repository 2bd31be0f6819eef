"""The part of the house that embeds: scheduler, models, and the services that need nothing else."""

import contextlib
import ctypes
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from embedserve.engine.cache import VectorCache
from embedserve.engine.cores import available_cores
from embedserve.engine.scheduler import Scheduler
from embedserve.errors import EmbedserveError
from embedserve.services.embedding import EmbeddingService, EmbedLimits
from embedserve.services.encoders import Encoders
from embedserve.services.engine_probe import EngineProbe
from embedserve.services.machine import Machine, resolve_device
from embedserve.services.metrics import Metrics
from embedserve.services.model_library import ModelLibrary
from embedserve.services.reranking import RerankingService
from embedserve.services.residency import Residency
from embedserve.settings import Settings
from embedserve.types import BatchTokens

logger = logging.getLogger(__name__)

M_ARENA_MAX = -8
"""glibc's malloc.h."""


@dataclass(frozen=True)
class Engine:
    """The part that embeds; it needs neither catalog nor lock."""

    scheduler: Scheduler
    encoders: Encoders
    models: ModelLibrary
    metrics: Metrics


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
        alone_threads=settings.alone_threads or available_cores(),
        residency=Residency(
            settings.keep_alive_s, settings.models_memory_bytes, settings.max_loaded_models
        ),
    )
    models = ModelLibrary(folder, encoders, Machine(device, scheduler.workers))
    try:
        yield Engine(scheduler, encoders, models, metrics)
    finally:
        models.close()
        encoders.close()
        scheduler.close()


@dataclass(frozen=True)
class Inference:
    """The services that ask models."""

    embedding: EmbeddingService
    reranking: RerankingService


def open_inference(settings: Settings, engine: Engine, stack: ExitStack) -> Inference:
    """Return the services of the embedding and reranking routes; they share one cache."""
    cache = VectorCache(settings.cache_bytes)
    engine.metrics.watch(engine.scheduler, cache, engine.encoders)
    limits = EmbedLimits(
        small_request_tokens=settings.small_request_tokens,
        max_texts=settings.max_request_texts,
        max_text_bytes=settings.max_text_bytes,
        timeout_s=settings.request_timeout_s,
        batch_tokens=settings.bulk_batch_tokens,
        queue_tokens=settings.queue_tokens,
    )
    threads = engine.scheduler.workers
    embedding = EmbeddingService(engine.encoders, cache, limits, threads=threads)
    stack.callback(embedding.close)
    reranking = RerankingService(
        engine.encoders, cache, limits, threads=threads, admission=embedding.admission
    )
    stack.callback(reranking.close)
    return Inference(embedding, reranking)


def open_probe(settings: Settings, engine: Engine, stack: ExitStack) -> EngineProbe:
    """Return what asks the engine whether it still embeds."""
    probe = EngineProbe(
        engine.scheduler,
        engine.encoders,
        default_model=settings.default_model,
        timeout_s=settings.ready_timeout_s,
    )
    stack.callback(probe.close)
    return probe


def load_default_model(encoders: Encoders, name: str) -> None:
    """Load it; a home that has none is served all the same."""
    try:
        encoders.get(name)
    except EmbedserveError as error:
        # The server starts all the same: it is how other models, or this one, get pulled.
        logger.warning("no default model, so /ready stays at 503: %s", error)


def _limit_malloc_arenas() -> None:
    """Let all threads share two of glibc's heaps.

    By default each thread may get its own, and what a large document leaves behind in one is of
    no use to the others: 276 MB instead of 246 MB after ingesting 440 mixed files.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 2)
