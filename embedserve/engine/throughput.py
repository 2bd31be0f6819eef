"""How fast each model runs here, measured while it works: how long will a queue take?"""

from weakref import WeakKeyDictionary

from embedserve.engine.backend import Backend

# Share of the newest run in the mean: about the last twenty runs count.
_NEWEST = 0.1


class Throughput:
    """Tokens per second of one worker, by backend. Not for several threads at once."""

    def __init__(self) -> None:
        self._rates: WeakKeyDictionary[Backend, float] = WeakKeyDictionary()

    def record(self, backend: Backend, tokens: int, seconds: float) -> None:
        """Take note of one run."""
        rate = tokens / max(seconds, 1e-6)
        known = self._rates.get(backend)
        self._rates[backend] = rate if known is None else known + _NEWEST * (rate - known)

    def seconds(self, backend: Backend, tokens: int) -> float:
        """Return how long one worker will take; 0 for a backend that has not run yet."""
        rate = self._rates.get(backend)
        return tokens / rate if rate else 0.0
