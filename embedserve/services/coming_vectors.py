"""Vectors that a job is having computed: files that are read at once share what both hold.

The catalog tells what was embedded before; this is about what is on its way there.
"""

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

from embedserve.types import Vectors

MOST_TEXTS = 4096
"""Whose vectors stay in memory, 6 MiB at 384 dimensions: more than the engine has of a job."""


class Place(NamedTuple):
    """Where the vector of a text will be."""

    rows: Future[Vectors]
    row: int


@dataclass(frozen=True)
class Claim:
    """What somebody wants, shared out."""

    own: tuple[str, ...]
    """Texts that nobody else computes, by their hash."""
    rows: Future[Vectors]
    """To be resolved with the vectors of `own`, or an error."""
    others: dict[str, Place]
    """Texts that somebody computes already."""


class ComingVectors:
    """Tell who computes the vector of a text; the oldest are forgotten. Safe across threads."""

    def __init__(self) -> None:
        self._places: OrderedDict[str, Place] = OrderedDict()
        self._lock = Lock()

    def claim(self, hashes: Sequence[str]) -> Claim:
        """Take the texts that nobody else has taken; they are the caller's to compute."""
        rows: Future[Vectors] = Future()
        rows.set_running_or_notify_cancel()  # others wait for it: it is not to be cancelled
        with self._lock:
            others = {key: self._places[key] for key in hashes if self._is_coming(key)}
            own = tuple(key for key in hashes if key not in others)
            for row, key in enumerate(own):
                self._places.pop(key, None)
                self._places[key] = Place(rows, row)
            while len(self._places) > MOST_TEXTS:
                self._places.popitem(last=False)
        return Claim(own, rows, others)

    def _is_coming(self, key: str) -> bool:
        place = self._places.get(key)
        return place is not None and not (place.rows.done() and place.rows.exception())


def pass_on(computed: Future[Vectors], rows: Future[Vectors]) -> None:
    """Resolve the rows of a claim with what the engine gives."""

    def resolve(done: Future[Vectors]) -> None:
        if done.cancelled():
            rows.set_exception(InterruptedError("given up by the file that had it computed"))
        elif error := done.exception():
            rows.set_exception(error)
        else:
            rows.set_result(done.result())

    computed.add_done_callback(resolve)
