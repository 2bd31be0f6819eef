"""An index takes another model: embedded anew, and the former vectors serve until then."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from embedserve.errors import ConflictError
from embedserve.services.definitions import Chunking, IndexDefinition
from embedserve.services.index_worker import IndexWorker
from embedserve.services.indexes import IndexService, IndexTools
from embedserve.services.ingestion import IngestionService, IngestTools
from embedserve.services.roots import AllowedRoots
from embedserve.store.catalog import Catalog
from embedserve.store.exact import ExactSearch
from embedserve.types import Index, Vectors
from tests.fakes import MemoryVectorIndex
from tests.store_samples import document, unit_vectors, wait_until

TEXTS = [f"text {number}" for number in range(300)]  # two pages


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
        tools = IndexTools(self.worker, roots, default_model="small")
        self.indexes = IndexService(catalog, vector_index, encoders, tools)
        ingest = IngestTools(cast(Any, None), self.worker, roots, jobs=1, files_at_once=1)
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


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    """A catalog with an index of the model `small`."""
    with Catalog(tmp_path / "c") as catalog:
        spec = Models().small.spec
        index = catalog.indexes.create(
            "notes", "{}", model="small", artefact=spec.artefact, dimensions=8
        )
        job = catalog.jobs.create("notes", "/d").id
        catalog.documents.commit(index, document("/d/a", TEXTS), job_id=job, outcome="added")
        catalog.jobs.finish(job, "succeeded")
        yield catalog


def test_another_model_takes_over_once_every_chunk_has_its_vector(catalog: Catalog) -> None:
    models, vector_index = Models(), MemoryVectorIndex()
    with served(catalog, models, vector_index) as house:
        former = house.index()
        assert house.worker.wait_until_applied(former.id, 20)
        models.large.gate.clear()
        house.put("large")
        house.put("large")  # asks for nothing more
        wait_until(lambda: house.catalog.jobs.latest(1)[0].status == "running", within_s=10)
        report = house.indexes.describe("notes")
        assert report.change is not None
        assert (report.change.model, report.ready, report.reachable) == ("large", 0, 300)
        assert house.index() == former
        [hit, *_] = ExactSearch(catalog.chunks).search(former, unit_vectors(1)[0], count=3)
        assert vector_index.search(former.key, unit_vectors(1)[0], count=1)[0].id == hit.id
        models.large.gate.set()
        house.wait_for_jobs()
        present = house.index()
        assert (present.model, present.dimensions) == ("large", 16)
        assert house.indexes.describe("notes").definition.model == "large"
        job = catalog.jobs.latest(1)[0]
        assert (job.kind, job.status, job.chunks_embedded) == ("reembed", "succeeded", 300)
        assert len(catalog.jobs.latest(10)) == 2
        assert catalog.indexes.counts(present.id).vectors == 300
        assert house.worker.wait_until_applied(present.id, 20)
        chunks = catalog.chunks.by_id(present.id, catalog.chunks.ids(present.id).tolist())
        for id_, vector in vector_index.rows[present.key].items():
            text = f"large: Title > Top > Ünter\n\n{chunks[id_].text}"
            assert text in models.large.texts
            assert np.array_equal(vector, models.large.vector(text)[0])
        assert len(vector_index.rows[present.key]) == 300
        wait_until(lambda: list(vector_index.rows) == [present.key], within_s=10)
        assert catalog.upkeep.delete_unused_vectors() == 300, "those of the former model"
        for model, embedded in (("small", 300), ("large", 0)):
            house.put(model)
            house.wait_for_jobs()
            assert house.index().model == model
            assert catalog.jobs.latest(1)[0].chunks_embedded == embedded, "vectors are kept"


def test_a_change_that_was_cut_off_goes_on_and_embeds_nothing_twice(catalog: Catalog) -> None:
    models, vector_index = Models(), MemoryVectorIndex()
    with served(catalog, models, vector_index) as house:
        house.ingestion.stop()
        house.put("large")
    change = catalog.model_changes.get(catalog.indexes.get("notes").id)
    assert change is not None
    done = catalog.model_changes.waiting(change.index_id, limit=100)
    vectors = unit_vectors(100, dimensions=16)
    hashes = [f"{number:064}" for number in range(100)]
    assert catalog.model_changes.keep(change, done, hashes, vectors)
    assert not catalog.model_changes.keep(replace(change, model="x"), done, hashes, vectors)
    assert catalog.integrity.count_unused_vectors() == 0, "a vacuum leaves them alone"
    with served(catalog, models, vector_index) as house:
        house.wait_for_jobs()
        assert len(models.large.texts) == 200
        assert house.index().model == "large"
        assert catalog.chunks.vectors_of(house.index(), [done[0].id]).vectors.shape == (1, 16)


def test_a_change_can_be_taken_back_and_is_refused_with_other_chunks(catalog: Catalog) -> None:
    models, vector_index = Models(), MemoryVectorIndex()
    with served(catalog, models, vector_index) as house:
        former = house.index()
        with pytest.raises(ConflictError, match="chunking"):
            house.put("large", chunking=Chunking(max_tokens=64))
        models.large.gate.clear()
        house.put("large")
        wait_until(lambda: house.catalog.jobs.latest(1)[0].status == "running", within_s=10)
        house.put("small", description="still")
        models.large.gate.set()
        house.wait_for_jobs()
        assert house.index().artefact == former.artefact
        assert house.indexes.describe("notes").change is None
        assert catalog.indexes.counts(former.id).vectors == 300
        assert house.worker.wait_until_applied(former.id, 20)
        assert len(vector_index.rows[house.index().key]) == 300
        assert catalog.model_changes.count_ready(former.id) == 0
