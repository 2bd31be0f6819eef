"""Settings to what measures the approximate index."""

from contextlib import ExitStack

from embedserve.services.dense_leg import DenseLeg
from embedserve.services.index_worker import IndexWorker
from embedserve.services.metrics import Metrics
from embedserve.services.recall_sample import RecallSampler
from embedserve.settings import Settings
from embedserve.store.catalog import Catalog
from embedserve.store.vector_index import VectorIndex


def open_sampler(
    settings: Settings,
    catalog: Catalog,
    index: tuple[VectorIndex, IndexWorker],
    metrics: Metrics,
    stack: ExitStack,
) -> RecallSampler:
    """Start what compares answers, stopped with `stack`; queries are to be offered to it."""
    # A leg of its own: what it asks is not offered to it again.
    sampler = RecallSampler(catalog, DenseLeg(catalog, *index), share=settings.recall_share)
    metrics.watch_recall(sampler)
    sampler.start()
    stack.callback(sampler.stop)
    return sampler
