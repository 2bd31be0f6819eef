"""What was read of segments, in bounded memory: a segment never changes, so nothing goes stale."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Protocol, TypeVar

MOST_BYTES = 96 << 20
"""An index of 250,000 chunks of 128 tokens fits in; of a larger one, what is asked for most."""


class Sized(Protocol):
    """What can be kept."""

    @property
    def size_bytes(self) -> int: ...  # noqa: D102  the attribute of that name


T = TypeVar("T", bound=Sized)


class SegmentCache:
    """Keep what was used last."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._lock = Lock()
        self._kept: OrderedDict[tuple[int, int | None], Sized] = OrderedDict()
        self._bytes = 0

    @property
    def size_bytes(self) -> int:
        """Return what is kept in all."""
        return self._bytes

    def get(self, key: tuple[int, int | None], load: Callable[[], T]) -> T:
        """Return what is kept under a key, which always means the same; load it if nothing is."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found  # type: ignore[return-value]  # keys tell the kinds apart
        loaded = load()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = loaded
                self._bytes += loaded.size_bytes
            while self._bytes > self._most_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].size_bytes
        return loaded
