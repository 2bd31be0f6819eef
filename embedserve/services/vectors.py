"""Vectors of tokenized texts for requests: a text asked for again is not computed again.

First the cache of finished vectors, then what another request computes just now, then the engine.
Ingestion goes past this: the catalog knows what it has embedded.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from embedserve.engine.cache import VectorCache, key_of
from embedserve.engine.encoder import Encoder
from embedserve.engine.requests import WhenFull
from embedserve.engine.tokenizer import TokenizedText
from embedserve.errors import NotFiniteError
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
    """Empty when it failed or its client left: whoever waits computes for itself."""


class _NotFinite(Exception):
    """These texts got vectors that are no numbers."""

    def __init__(self, texts: Sequence[TokenizedText]) -> None:
        super().__init__()
        self.texts = texts


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
        Raises OverloadedError, NotFiniteError and ModelError. When the caller is cancelled, its
        texts are dropped.
        """
        try:
            return await self._vectors(_Job(encoder, lane, deadline_s, when_full), texts)
        except _NotFinite as error:
            wrong = {text.ids.tobytes() for text in error.texts}
            positions = [i for i, text in enumerate(texts) if text.ids.tobytes() in wrong]
            raise NotFiniteError(positions) from None

    async def _vectors(self, job: _Job, texts: Sequence[TokenizedText]) -> Vectors:
        encoder, lane = job.encoder, job.lane
        if not self._cache.is_on:
            return await self._run(job, texts)
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
            self._cache.keep(keys, vectors)
            flight.rows = dict(zip(keys, vectors, strict=True))
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
        vectors = await self._mailbox.result(pending)
        is_finite = np.isfinite(vectors)
        if not is_finite.all():
            rows: list[bool] = np.all(is_finite, axis=1).tolist()
            raise _NotFinite(
                [text for text, is_good in zip(texts, rows, strict=True) if not is_good]
            )
        return vectors


def _stacked(rows: Iterable[Vectors], count: int, dimensions: int) -> Vectors:
    stacked: Vectors = np.empty((count, dimensions), dtype=np.float32)
    for position, row in enumerate(rows):
        stacked[position] = row
    return stacked
