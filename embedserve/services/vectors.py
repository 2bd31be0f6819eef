"""Vectors of tokenized texts for requests: a text asked for again is not computed again.

First the cache of finished vectors, then what another request computes just now, then the engine.
Ingestion goes past this: the catalog knows what it has embedded.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embedserve.engine.cache import VectorCache, key_of
from embedserve.engine.encoder import Encoder
from embedserve.engine.requests import WhenFull
from embedserve.engine.tokenizer import TokenizedText
from embedserve.errors import ModelError, NotFiniteError, TextFailedError
from embedserve.services.mailbox import Mailbox
from embedserve.types import Lane, Vectors


@dataclass(frozen=True, slots=True)
class _Job:
    """What the texts of one request share."""

    encoder: Encoder
    lane: Lane
    deadline_s: float | None
    when_full: WhenFull


@dataclass
class _Flight:
    """Texts that one request has in the engine now."""

    lane: Lane
    is_over: asyncio.Event = field(default_factory=asyncio.Event)
    rows: Mapping[bytes, Vectors] = field(default_factory=dict)
    """None of what failed or whose client left: whoever waits computes that for itself."""


class _BadTexts(Exception):
    """These texts got no vectors, and others of the same request may have got theirs."""

    def __init__(
        self, texts: Sequence[TokenizedText], told: Callable[[Sequence[int]], ModelError]
    ) -> None:
        """Take what makes an error of the positions at which the caller has the texts."""
        super().__init__()
        self.texts = texts
        self.told = told


class VectorSource:
    """Compute what is neither kept nor under way. For one event loop."""

    def __init__(self, cache: VectorCache) -> None:
        self._cache = cache
        self._mailbox = Mailbox()
        self._flights: dict[bytes, _Flight] = {}

    async def vectors(
        self,
        encoder: Encoder,
        texts: Sequence[TokenizedText],
        *,
        lane: Lane,
        deadline_s: float | None = None,
        when_full: WhenFull = "refuse",
    ) -> Vectors:
        """Return (len(texts), dimensions) float32 in the order of the texts.

        What has not begun at `deadline_s`, of `time.monotonic`, is dropped.
        Raises OverloadedError, ModelError, and NotFiniteError or TextFailedError with the positions
        of the texts at fault. When the caller is cancelled, its texts are dropped.
        """
        try:
            return await self._vectors(_Job(encoder, lane, deadline_s, when_full), texts)
        except _BadTexts as error:
            wrong = {text.ids.tobytes() for text in error.texts}
            positions = [i for i, text in enumerate(texts) if text.ids.tobytes() in wrong]
            raise error.told(positions) from error.__cause__

    async def _vectors(self, job: _Job, texts: Sequence[TokenizedText]) -> Vectors:
        encoder, lane = job.encoder, job.lane
        if not self._cache.is_on:
            vectors = await self._run(job, texts)
            _check_finite(texts, vectors)
            return vectors
        keys = [key_of(encoder.spec.artefact, text.ids) for text in texts]
        rows = {k: r for k, r in zip(keys, self._cache.find(keys), strict=True) if r is not None}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in rows}
        # A query does not wait for a large request to be done, only for one of its own kind.
        under_way = {
            key: flight
            for key in missing
            if (flight := self._flights.get(key)) and (lane == "bulk" or flight.lane == lane)
        }
        own = {key: text for key, text in missing.items() if key not in under_way}
        rows |= await self._compute(job, own)
        for key, flight in under_way.items():
            await flight.is_over.wait()
            if key in flight.rows:
                rows[key] = flight.rows[key]
        left = {key: missing[key] for key in under_way if key not in rows}
        rows |= await self._compute(job, left)
        return _stacked((rows[key] for key in keys), len(keys), encoder.spec.dimensions)

    async def _compute(
        self, job: _Job, texts: Mapping[bytes, TokenizedText]
    ) -> Mapping[bytes, Vectors]:
        if not texts:
            return {}
        flight, keys = _Flight(job.lane), list(texts)
        for key in keys:
            self._flights.setdefault(key, flight)
        try:
            vectors = await self._run(job, list(texts.values()))
            # The good rows were computed: one that is none does not cost them.
            good = np.flatnonzero(_is_finite(vectors)).tolist()
            if len(good) == len(keys):
                self._cache.keep(keys, vectors)
            else:
                self._cache.keep([keys[i] for i in good], vectors[good])
            flight.rows = {keys[i]: vectors[i] for i in good}
            _check_finite(list(texts.values()), vectors)
            return flight.rows
        finally:
            for key in keys:
                if self._flights.get(key) is flight:
                    del self._flights[key]
            flight.is_over.set()

    async def _run(self, job: _Job, texts: Sequence[TokenizedText]) -> Vectors:
        left_s = None if job.deadline_s is None else job.deadline_s - time.monotonic()
        pending = job.encoder.submit(
            texts, lane=job.lane, when_full=job.when_full, timeout_s=left_s
        )
        try:
            return await self._mailbox.result(pending)
        except TextFailedError as error:
            raise _BadTexts([texts[i] for i in error.positions], error.at) from error


def _is_finite(vectors: Vectors) -> NDArray[np.bool_]:
    """Tell of each row whether all of it are numbers."""
    finite: NDArray[np.bool_] = np.all(np.isfinite(vectors), axis=1)
    return finite


def _check_finite(texts: Sequence[TokenizedText], vectors: Vectors) -> None:
    """Raise _BadTexts for texts whose rows are no numbers."""
    is_finite = _is_finite(vectors)
    if not is_finite.all():
        wrong = np.flatnonzero(~is_finite).tolist()
        raise _BadTexts([texts[i] for i in wrong], NotFiniteError)


def _stacked(rows: Iterable[Vectors], count: int, dimensions: int) -> Vectors:
    stacked: Vectors = np.empty((count, dimensions), dtype=np.float32)
    for position, row in enumerate(rows):
        stacked[position] = row
    return stacked
