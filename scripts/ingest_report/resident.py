"""The whole house in a process of its own, which ingests a folder and runs its engine alone.

One file in one engine runs up to a quarter faster or slower from start to start, so a job is only
compared with the very engine that worked for it.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedserve.bootstrap.house import open_house
from embedserve.engine.encoder import Encoder
from embedserve.engine.tokenizer import TokenizedText
from embedserve.services.definitions import IndexDefinition
from embedserve.services.embedded_text import EmbeddedTexts
from embedserve.services.token_budget import chunk_budget
from embedserve.settings import read_settings
from embedserve.types import Chunk, Vectors

INDEX = "measured"
_POLL_S = 0.1  # each poll reads the catalog
# What is submitted to the engine at once; more of it waits while this runs.
_REQUEST_TEXTS = 1024
_TABLE_ROWS = 4096

# One chunk for each text that was embedded.
_DISTINCT = """
SELECT d.title, c.text, c.heading FROM chunks c JOIN documents d ON d.id = c.document_id
WHERE c.id IN (SELECT min(id) FROM chunks GROUP BY text_hash) ORDER BY c.id
"""


@dataclass(frozen=True)
class Run:
    """What one job did."""

    seconds: float
    cpu_seconds: float
    """Of this process: engine, tokenizer, catalog and all threads, without its children."""
    files: int
    chunks: int
    embedded: int
    tokens: int
    """Embedded."""


@dataclass(frozen=True)
class Alone:
    """What the engine took for the distinct chunks by themselves."""

    seconds: float
    cpu_seconds: float
    texts: int
    tokens: int


class Resident:
    """A house with one index, filled again and again."""

    def __init__(self, home: Path, folder: Path, apart: int) -> None:
        """With `apart`, the engine is measured on so many texts, and the job does without it."""
        os.chdir(home)  # no project folder: no definitions are picked up by chance
        settings = read_settings({"home": home, "ingest_roots": (folder,)}, {})
        with ExitStack() as stack:
            self._services = stack.enter_context(open_house(settings)).services
            self._stack = stack.pop_all()
        # Below the public door on purpose: the same loaded graph is to be run without it.
        self._catalog: Any = self._services.indexes._catalog
        encoders = self._services.ingestion._work_of._encoders
        self._encoder: Encoder = encoders.get(settings.default_model)
        self._folder = folder
        self._apart = apart
        self._submit = self._encoder.submit
        if apart:
            self._encoder.submit = _sums(self._encoder.spec.dimensions)  # type: ignore[method-assign]
        self._texts: list[TokenizedText] = []

    def empty(self) -> None:
        """Forget documents and vectors."""
        if INDEX in self._services.indexes.names():
            self._services.indexes.delete(INDEX)
        with self._catalog.jobs._database.write() as connection:
            connection.execute("DELETE FROM vectors")
        self._services.indexes.put(INDEX, IndexDefinition())

    def ingest(self) -> Run:
        """Run one job to its end."""
        ingestion = self._services.ingestion
        started, cpu = time.perf_counter(), time.process_time()
        job_id = ingestion.submit(INDEX, str(self._folder)).id
        while (job := ingestion.job(job_id)).status in ("queued", "running"):
            time.sleep(_POLL_S)
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        counts = self._services.indexes.describe(INDEX).counts
        done = (counts.documents, counts.chunks, job.chunks_embedded, job.tokens_embedded)
        return Run(seconds, cpu_seconds, *done)

    def alone(self) -> Alone:
        """Run the engine on the distinct chunks of the last job, tokenized beforehand."""
        texts = self._texts = self._texts or self._tokenized()
        started, cpu = time.perf_counter(), time.process_time()
        futures = [
            self._submit(texts[first : first + _REQUEST_TEXTS], lane="bulk", when_full="wait")
            for first in range(0, len(texts), _REQUEST_TEXTS)
        ]
        for future in futures:
            future.result()
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        return Alone(seconds, cpu_seconds, len(texts), sum(len(text.ids) for text in texts))

    def close(self) -> None:
        """Stop in order."""
        self._stack.close()

    def _tokenized(self) -> list[TokenizedText]:
        budget = chunk_budget(self._encoder, IndexDefinition())
        embedded = EmbeddedTexts(self._encoder, budget)
        with self._catalog.jobs._database.read() as connection:
            rows = connection.execute(_DISTINCT).fetchall()
        if self._apart:  # some from everywhere
            rows = rows[:: max(1, len(rows) // self._apart)]
        texts = []
        for title, text, heading in rows:
            chunk = Chunk(0, text, 0, len(text), heading=tuple(_names(heading)))
            texts += embedded.of(title, [chunk])
        return self._encoder.tokenize(texts)


def _sums(dimensions: int) -> Callable[..., Future[Vectors]]:
    """Return what takes texts as an encoder does, and gives sums over a table at once."""
    table = np.random.default_rng(0).normal(size=(_TABLE_ROWS, dimensions)).astype(np.float32)

    def submit(texts: Sequence[TokenizedText], **how: object) -> Future[Vectors]:
        future: Future[Vectors] = Future()
        rows = np.empty((len(texts), dimensions), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[:] = table[text.ids % _TABLE_ROWS].sum(axis=0)
        future.set_result(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        return future

    return submit


def _names(heading: str) -> list[str]:
    names: list[str] = json.loads(heading)
    return names


_resident: Resident | None = None


def begin(home: Path, folder: Path, apart: int) -> int:
    """Open the house of this process; return its process id."""
    global _resident
    _resident = Resident(home, folder, apart)
    return os.getpid()


def empty() -> None:
    """See `Resident.empty`."""
    _open().empty()


def ingest() -> Run:
    """See `Resident.ingest`."""
    return _open().ingest()


def alone() -> Alone:
    """See `Resident.alone`."""
    return _open().alone()


def end() -> None:
    """See `Resident.close`."""
    _open().close()


def _open() -> Resident:
    if _resident is None:
        raise RuntimeError("This is a bug: no house was opened in this process")
    return _resident
