"""Is the server alive, and is it ready to do its work? Each answer names its reason."""

from collections.abc import Callable

from embedserve.errors import EmbedserveError, VectorStoreError
from embedserve.services.engine_probe import EngineProbe
from embedserve.services.index_worker import IndexWorker
from embedserve.store.catalog import Catalog
from embedserve.store.vector_index import VectorIndex, probe


class HealthService:
    """Check the parts that every request depends on."""

    def __init__(
        self,
        catalog: Catalog,
        vector_index: VectorIndex,
        index_worker: IndexWorker,
        engine: EngineProbe,
    ) -> None:
        self._catalog = catalog
        self._vector_index = vector_index
        self._index_worker = index_worker
        self._engine = engine

    def readiness(self) -> dict[str, str]:
        """Return each part's state: `ok`, or what is wrong with it."""
        return {
            "engine": _state(self._engine.check_engine),
            "model": _state(self._engine.check_model),
            "catalog": _state(self._catalog.check),
            "vector_index": _state(self._check_vector_index),
        }

    def _check_vector_index(self) -> None:
        if not self._index_worker.is_alive:
            raise VectorStoreError("This is a bug: nothing carries changes to the vector index.")
        probe(self._vector_index)


def _state(check: Callable[[], object]) -> str:
    try:
        check()
    except EmbedserveError as error:
        return error.message
    return "ok"
