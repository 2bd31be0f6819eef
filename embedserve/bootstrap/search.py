"""Settings to what answers queries, and to what measures the approximate index."""

from contextlib import ExitStack
from dataclasses import dataclass

from embedserve.engine.cores import available_cores
from embedserve.services.dense_leg import DenseLeg
from embedserve.services.encoders import Encoders
from embedserve.services.index_worker import IndexWorker
from embedserve.services.indexes import IndexService
from embedserve.services.metrics import Metrics
from embedserve.services.recall_sample import RecallSampler
from embedserve.services.reranking import RerankingService
from embedserve.services.search import SearchLimits, SearchService
from embedserve.settings import Settings
from embedserve.store.catalog import Catalog
from embedserve.store.vector_index import VectorIndex


@dataclass(frozen=True)
class Searched:
    """What queries are answered from."""

    catalog: Catalog
    vector_index: VectorIndex
    worker: IndexWorker
    encoders: Encoders

    def leg(self) -> DenseLeg:
        """Return a new dense leg."""
        return DenseLeg(self.catalog, self.vector_index, self.worker)


def open_sampler(
    settings: Settings, searched: Searched, metrics: Metrics, stack: ExitStack
) -> RecallSampler:
    """Start what compares answers, stopped with `stack`; queries are to be offered to it."""
    # A leg of its own: what it asks is not offered to it again.
    sampler = RecallSampler(searched.catalog, searched.leg(), share=settings.recall_share)
    metrics.watch_recall(sampler)
    sampler.start()
    stack.callback(sampler.stop)
    return sampler


def open_search(
    settings: Settings,
    searched: Searched,
    indexes: IndexService,
    reranking: RerankingService,
    sampler: RecallSampler,
    stack: ExitStack,
) -> SearchService:
    """Make what answers queries, closed with `stack`; some are offered to `sampler`."""
    dense = searched.leg()
    dense.on_approximate = sampler.offer
    search = SearchService(
        *(searched.catalog, indexes, dense, searched.encoders, reranking),
        SearchLimits(
            timeout_s=settings.request_timeout_s,
            threads=settings.search_threads or available_cores() + 1,
        ),
    )
    stack.callback(search.close)
    return search
