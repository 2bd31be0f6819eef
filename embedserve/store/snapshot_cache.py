"""What was read of the catalog, kept until anything is written to it."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

from embedserve.store.database import Database

T = TypeVar("T")


class SnapshotCache(Generic[T]):
    """Keep the values that were asked for last."""

    def __init__(self, database: Database, *, most: int) -> None:
        self._database = database
        self._most = most
        self._lock = Lock()
        self._version = -1
        self._kept: OrderedDict[Hashable, T] = OrderedDict()

    def known(self, key: Hashable) -> T | None:
        """Return what is kept and still true; None: nothing is."""
        with self._lock:
            if self._version != self._database.version or key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key]

    def get(self, key: Hashable, load: Callable[[], T]) -> T:
        """Return what is kept under a key; load it, in a transaction of its own, if nothing is."""
        found = self.known(key)
        if found is not None:
            return found
        # Before it is read: what is written meanwhile makes it be read again.
        version = self._database.version
        loaded = load()
        with self._lock:
            if version > self._version:
                self._kept.clear()
                self._version = version
            if version == self._version:
                self._kept[key] = loaded
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
        return loaded
