"""Is the server alive, and is it ready to do its work? Each answer names its reason."""

from collections.abc import Callable

from embedserve.errors import EmbedserveError
from embedserve.services.encoders import Encoders
from embedserve.store.catalog import Catalog
from embedserve.store.vector_index import VectorIndex, probe


class HealthService:
    """Check the parts that every request depends on."""

    def __init__(
        self, catalog: Catalog, vector_index: VectorIndex, encoders: Encoders, *, default_model: str
    ) -> None:
        self._catalog = catalog
        self._vector_index = vector_index
        self._encoders = encoders
        self._default_model = default_model

    def readiness(self) -> dict[str, str]:
        """Return each part's state: `ok`, or what is wrong with it."""
        return {
            "model": _state(lambda: self._encoders.check_canary(self._default_model)),
            "catalog": _state(self._catalog.check),
            "vector_index": _state(lambda: probe(self._vector_index)),
        }


def _state(check: Callable[[], object]) -> str:
    try:
        check()
    except EmbedserveError as error:
        return error.message
    return "ok"
