"""Indexes with two models that need no engine, and the services that a server has around them."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from hashlib import sha256
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from embedserve.services.definitions import IndexDefinition
from embedserve.services.index_worker import IndexWorker
from embedserve.services.indexes import IndexService, IndexTools
from embedserve.services.ingestion import IngestionService
from embedserve.services.job_run import IngestTools
from embedserve.services.memory import FreedMemory
from embedserve.services.recall_sample import RecallSampler
from embedserve.services.roots import AllowedRoots
from embedserve.store.catalog import Catalog
from embedserve.types import Index, Vectors
from tests.fakes import MemoryVectorIndex
from tests.store_samples import unit_vectors, wait_until


class Model:
    """An encoder whose vectors follow from the text; it may be held up."""

    def __init__(self, name: str, dimensions: int) -> None:
        artefact = sha256(name.encode()).hexdigest()
        self.spec = SimpleNamespace(
            artefact=artefact, dimensions=dimensions, max_tokens=256, document_prompt=f"{name}: "
        )
        self.gate = Event()
        self.gate.set()
        self.texts: list[str] = []

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        return [np.array([[i, i + 1] for i in range(len(text))] or np.empty((0, 2), int))
                for text in texts]  # fmt: skip

    def tokenize(self, texts: Sequence[str]) -> list[SimpleNamespace]:
        limit = self.spec.max_tokens
        return [
            SimpleNamespace(text=text, ids=np.zeros(len(text)), is_truncated=len(text) > limit)
            for text in texts
        ]

    def submit(
        self, texts: Sequence[SimpleNamespace], *, lane: str, when_full: str
    ) -> "Future[Vectors]":
        future: Future[Vectors] = Future()
        Thread(target=lambda: future.set_result(self.encode([one.text for one in texts]))).start()
        return future

    def encode(self, texts: Sequence[str]) -> Vectors:
        assert self.gate.wait(20)
        self.texts += texts
        empty = np.empty((0, self.spec.dimensions), np.float32)
        return np.concatenate([empty, *(self.vector(text) for text in texts)])

    def vector(self, text: str) -> Vectors:
        seed = int(sha256(text.encode()).hexdigest()[:8], 16)
        return unit_vectors(1, seed=seed, dimensions=self.spec.dimensions)


class Models:
    """Two of them, by name."""

    def __init__(self) -> None:
        self.small, self.large = Model("small", 8), Model("large", 16)
        self.freed = FreedMemory()

    def get(self, name: str) -> Model:
        found: Model = getattr(self, name)
        return found

    def canary(self, artefact: str) -> None:
        """No machine's answer is known."""

    def is_loaded(self, name: str) -> bool:
        return False


class House:
    """The services of one life of a server."""

    def __init__(self, catalog: Catalog, models: Models, vector_index: MemoryVectorIndex) -> None:
        self.catalog, self.models, self.vector_index = catalog, models, vector_index
        self.worker = IndexWorker(catalog, vector_index)
        roots = AllowedRoots([])
        encoders = cast(Any, models)
        absent = cast(Any, None)
        sampler = RecallSampler(catalog, absent, share=0)
        tools = IndexTools(self.worker, roots, absent, {}, sampler, default_model="small")
        self.indexes = IndexService(catalog, vector_index, encoders, tools)
        ingest = IngestTools(
            *(absent, self.worker, roots, absent, absent),
            max_files=9,
            max_urls=9,
            jobs=1,
            files_at_once=1,
        )
        self.ingestion = IngestionService(catalog, self.indexes, encoders, ingest)
        self.worker.start(check=False)
        self.ingestion.start()

    def put(self, model: str, **others: Any) -> None:  # noqa: ANN401  keys of the definition
        assert not self.indexes.put("notes", IndexDefinition(model=model, **others))

    def index(self) -> Index:
        return self.catalog.indexes.get("notes")

    def wait_for_jobs(self) -> None:
        def are_over() -> bool:
            jobs = self.catalog.jobs.latest(10)
            return all(job.status not in ("queued", "running") for job in jobs)

        wait_until(are_over, within_s=30)


@contextmanager
def served(catalog: Catalog, models: Models, vector_index: MemoryVectorIndex) -> Iterator[House]:
    house = House(catalog, models, vector_index)
    try:
        yield house
    finally:
        house.ingestion.stop()
        house.worker.stop()
