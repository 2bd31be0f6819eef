"""What is counted while the server works, as a page for Prometheus. Sends nothing anywhere.

The only module that knows the metrics library.
"""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from embedserve.engine.cache import VectorCache
from embedserve.engine.scheduler import BatchReport, Scheduler
from embedserve.errors import DeadlineError, EmbedserveError, OverloadedError, TooLargeError
from embedserve.services.encoders import Encoders
from embedserve.services.recall_sample import COUNT, RecallSampler
from embedserve.services.residency import REASONS
from embedserve.types import Lane

_LANES: tuple[Lane, ...] = ("small", "bulk")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_REFUSALS: Mapping[type[EmbedserveError], str] = {
    OverloadedError: "overloaded",
    TooLargeError: "too_large",
    DeadlineError: "deadline",
}
_BATCH_TEXTS = (1, 2, 4, 8, 16, 32)


class Metrics:
    """Counters of one server; safe across threads."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._add_requests(registry)
        self._add_batches(registry)

    def _add_requests(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "embedserve_requests", "HTTP requests.", ["route", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "embedserve_request_seconds",
            "Seconds from a request's headers to its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._truncated = Counter(
            "embedserve_truncated_texts",
            "Texts of requests that were cut to a length limit.",
            registry=registry,
        )
        self._refusals = Counter(
            "embedserve_refusals",
            "Embedding requests that were not carried out though nothing else was wrong with them.",
            ["reason"],
            registry=registry,
        )
        for reason in _REFUSALS.values():
            self._refusals.labels(reason)  # there from the start, at 0

    def _add_batches(self, registry: CollectorRegistry) -> None:
        self._texts = Counter("embedserve_texts", "Texts run.", ["lane"], registry=registry)
        self._tokens = Counter(
            "embedserve_tokens",
            "Tokens run, at the length at which they run.",
            ["lane"],
            registry=registry,
        )
        self._waited = Histogram(
            "embedserve_queue_seconds",
            "Longest wait for a worker among the texts of a batch.",
            ["lane"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._run = Histogram(
            "embedserve_run_seconds",
            "Seconds that a batch took in the engine.",
            ["lane"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._batch = Histogram(
            "embedserve_batch_texts", "Texts of a batch.", buckets=_BATCH_TEXTS, registry=registry
        )

    def count_batch(self, report: BatchReport) -> None:
        """Take note of one run of the engine."""
        self._texts.labels(report.lane).inc(report.texts)
        self._tokens.labels(report.lane).inc(report.tokens)
        self._waited.labels(report.lane).observe(report.waited_s)
        self._run.labels(report.lane).observe(report.run_s)
        self._batch.observe(report.texts)

    def count_request(self, route: str, status: int, seconds: float) -> None:
        """Take note of one answered request; `route` must be one of few."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def count_truncated(self, texts: int) -> None:
        """Take note of texts that were cut."""
        self._truncated.inc(texts)

    def count_refusal(self, error: EmbedserveError) -> None:
        """Take note of a request that failed, if it was refused for its size or for the load."""
        if reason := _REFUSALS.get(type(error)):
            self._refusals.labels(reason).inc()

    def watch(self, scheduler: Scheduler, cache: VectorCache, encoders: Encoders) -> None:
        """Show the state of these parts whenever the page is asked for."""
        self._registry.register(_State(scheduler, cache, encoders))

    def watch_recall(self, sampler: RecallSampler) -> None:
        """Show what samples of queries say of the approximate index."""
        self._registry.register(_Recall(sampler))

    def page(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)


class _State(Collector):
    """What is read when somebody asks, instead of counted when it happens."""

    def __init__(self, scheduler: Scheduler, cache: VectorCache, encoders: Encoders) -> None:
        self._scheduler = scheduler
        self._cache = cache
        self._encoders = encoders

    def collect(self) -> Iterable[Metric]:
        queue = GaugeMetricFamily(
            "embedserve_queue_tokens", "Tokens that wait for a worker.", labels=["lane"]
        )
        for lane in _LANES:
            queue.add_metric([lane], self._scheduler.queued_tokens(lane))
        counts = self._cache.counts()
        yield queue
        yield _counter("worker_restarts", "Workers replaced.", self._scheduler.restarts)
        yield _counter("cache_hits", "Texts found in the cache.", counts.hits)
        yield _counter("cache_misses", "Texts not found in the cache.", counts.misses)
        yield _gauge("cache_bytes", "Memory of the cache.", counts.size_bytes)
        yield _gauge("cache_entries", "Vectors in the cache.", counts.entries)
        loaded = self._encoders.loaded()
        yield _gauge("loaded_models", "Models in memory.", len(loaded))
        counted = sum(model.counted_bytes for model in loaded)
        yield _gauge("loaded_models_bytes", "What they count of the memory for models.", counted)
        yield _counter("model_loads", "Models loaded.", self._encoders.loads)
        unloads = CounterMetricFamily(
            "embedserve_model_unloads", "Models let go.", labels=["reason"]
        )
        for reason in REASONS:
            unloads.add_metric([reason], self._encoders.unloads(reason))
        yield unloads


class _Recall(Collector):
    def __init__(self, sampler: RecallSampler) -> None:
        self._sampler = sampler

    def collect(self) -> Iterable[Metric]:
        recall = GaugeMetricFamily(
            "embedserve_recall",
            f"Share of the {COUNT} nearest texts that the approximate index finds.",
            labels=["index"],
        )
        samples = GaugeMetricFamily(
            "embedserve_recall_samples", "Queries that it is the mean of.", labels=["index"]
        )
        for name, found in self._sampler.recalls().items():
            recall.add_metric([name], found.mean)
            samples.add_metric([name], found.samples)
        yield recall
        yield samples
        yield _counter("recall_dropped", "Queries drawn and not compared.", self._sampler.dropped)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"embedserve_{name}", text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"embedserve_{name}", text, value=value)
