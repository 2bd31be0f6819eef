"""An index takes another model: embedded anew, and the former vectors serve until then."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedserve.errors import ConflictError, ForbiddenError
from embedserve.services.canary import CanaryCheck
from embedserve.services.definitions import Access, AccessRule, Chunking, IndexDefinition
from embedserve.services.origins import Origin
from embedserve.services.viewing import OWNER, acting_as
from embedserve.store.catalog import Catalog
from embedserve.store.exact import ExactSearch
from embedserve.store.model_changes import ModelChange
from embedserve.store.origins import set_origin
from tests.fake_house import Models, served
from tests.fakes import MemoryVectorIndex
from tests.store_samples import document, unit_vectors, wait_until

TEXTS = [f"text {number}" for number in range(300)]  # two pages


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
        wait_until(lambda: house.catalog.jobs.latest(1)[0].status == "running", within_s=10)
        report = house.indexes.describe("notes")
        assert report.change is not None
        assert (report.change.model, report.ready, report.reachable) == ("large", 0, 300)
        assert house.index() == former
        [hit, *_] = ExactSearch(catalog.chunks).search(former, unit_vectors(1)[0], count=3)
        assert vector_index.search(former.key, unit_vectors(1)[0], count=1)[0].id == hit.id
        house.put("large")
        house.put("large")  # asks for one job more, which waits for the first
        models.large.gate.set()
        house.wait_for_jobs()
        present = house.index()
        assert (present.model, present.dimensions) == ("large", 16)
        assert house.indexes.describe("notes").definition.model == "large"
        last, job, _ = catalog.jobs.latest(10)
        assert (job.kind, job.status, job.chunks_embedded) == ("reembed", "succeeded", 300)
        assert (last.kind, last.status, last.chunks_embedded) == ("reembed", "succeeded", 0)
        assert catalog.indexes.counts(present.id).vectors == 300
        assert house.worker.wait_until_applied(present.id, 20)
        chunks = catalog.chunks.by_id(present.id, catalog.chunks.ids(present.id).tolist())
        for id_, vector in vector_index.rows[present.key].items():
            text = f"large: Title > Top > Ünter\n\n{chunks[id_].text}"
            assert text in models.large.texts
            assert np.array_equal(vector, models.large.vector(text)[0])
        assert len(vector_index.rows[present.key]) == 300
        wait_until(lambda: list(vector_index.rows) == [present.key], within_s=10)
        assert sum(catalog.upkeep.delete_unused_vectors()) == 300, "those of the former model"
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


def test_what_is_asked_for_in_a_jobs_last_minute_is_done_by_the_next(catalog: Catalog) -> None:
    models, vector_index = Models(), MemoryVectorIndex()
    with served(catalog, models, vector_index) as house:
        former = house.index()
        # The job has switched, and waits for vectors that do not arrive.
        vector_index.failures[former.key + 1] = TypeError("as the test asked")
        house.put("large")
        wait_until(lambda: house.index().model == "large", within_s=10)
        first = catalog.jobs.latest(1)[0]
        assert first.status == "running"
        house.put("small")
        house.ingestion.cancel(first.id)
        started = time.monotonic()
        house.wait_for_jobs()
        assert time.monotonic() - started < 5, "a job that waits hears that it is to stop"
        assert house.index().artefact == former.artefact
        assert house.indexes.describe("notes").change is None
        assert house.worker.wait_until_applied(former.id, 20)


def test_texts_that_the_other_model_cuts_are_noted_with_their_file(catalog: Catalog) -> None:
    job = catalog.jobs.create("notes", "/d").id
    long = document("/d/b", ["x" * 300, "short"])
    index = catalog.indexes.get("notes")
    catalog.documents.commit(index, long, job_id=job, outcome="added")
    catalog.jobs.finish(job, "succeeded")
    with served(catalog, Models(), MemoryVectorIndex()) as house:
        house.put("large")
        house.wait_for_jobs()
        [noted] = catalog.jobs.file_results(catalog.jobs.latest(1)[0].id, limit=10)
        assert noted.path == "/d/b"
        assert "more tokens" in noted.warnings[0]
        assert "`large` takes (256)" in noted.warnings[0]


def test_vectors_of_another_machine_are_not_added_to(catalog: Catalog) -> None:
    here = CanaryCheck("text", unit_vectors(1)[0], "here", "1", is_exact=True, words="")
    there = replace(here, vector=unit_vectors(1, seed=1)[0], cpu="there")

    class Moved(Models):
        def canary(self, artefact: str) -> CanaryCheck:  # type: ignore[override]
            return here

    models = Moved()
    with served(catalog, models, MemoryVectorIndex()) as house:
        models.large.gate.clear()
        house.put("large")
        with catalog._database.write() as connection:
            set_origin(connection, models.large.spec.artefact, Origin.of(there).write())
        models.large.gate.set()
        house.put("large")  # vectors of the former machine are about to be used, so they stay
        house.wait_for_jobs()
        assert catalog.jobs.latest(1)[0].status == "failed"
        assert "does not give here (made on `there`" in str(catalog.jobs.latest(1)[0].error)
        assert house.index().model == "small"


def test_an_index_without_chunks_changes_in_place(catalog: Catalog) -> None:
    with served(catalog, Models(), MemoryVectorIndex()) as house:
        house.ingestion.stop()
        spec = house.models.small.spec
        index = catalog.indexes.create(
            "empty", "{}", model="small", artefact=spec.artefact, dimensions=8
        )
        job = catalog.jobs.create("empty", "/d")
        assert not house.indexes.put("empty", IndexDefinition(model="large"))
        present = catalog.indexes.get("empty")
        assert (present.id, present.model, present.dimensions) == (index.id, "large", 16)
        assert present.key != index.key
        assert catalog.jobs.get(job.id).status == "queued"
        wait_until(lambda: catalog.generations.dropped() == [], within_s=10)
        assert catalog.jobs.claim_next("runner") == replace(
            job, status="running", started_at=catalog.jobs.get(job.id).started_at
        )
        house.indexes.put("empty", IndexDefinition(model="small"))
        assert catalog.indexes.get("empty").model == "large", "the job may commit chunks of it"
        assert house.indexes.describe("empty").change is not None
        assert not catalog.model_changes.stay(index, "{}"), "it has another model by now"
        catalog.indexes.delete("empty")
        change = ModelChange(index.id, "{}", "small", spec.artefact, 8)
        assert not catalog.model_changes.become_at_once(index, change)
        assert not catalog.model_changes.ask(index, change)


def test_access_rules_do_not_wait_for_the_model(catalog: Catalog) -> None:
    models = Models()
    rules = Access(rules=(AccessRule(claim="email", field="owner"),))
    with served(catalog, models, MemoryVectorIndex()) as house:
        models.large.gate.clear()
        house.indexes.put("notes", IndexDefinition(model="large", access=rules))
        assert house.index().model == "small"
        assert house.indexes.see("notes").is_partial
        assert house.indexes.describe("notes").counts.chunks == 0
        with pytest.raises(ForbiddenError):
            house.put("large")
        with pytest.raises(ForbiddenError):
            house.indexes.find("notes")
        models.large.gate.set()
        house.wait_for_jobs()
        assert house.index().model == "large"
        with acting_as(OWNER):
            assert house.indexes.describe("notes").definition.access == rules
            house.put("large")
        assert house.indexes.describe("notes").counts.chunks == 300


def test_access_rules_of_a_file_hold_though_the_rest_of_it_cannot(catalog: Catalog) -> None:
    rules = Access(rules=(AccessRule(claim="email", field="owner"),))
    with served(catalog, Models(), MemoryVectorIndex()) as house:
        assert not house.indexes.see("notes").is_partial
        other = Chunking(max_tokens=16)
        house.indexes.apply({"notes": IndexDefinition(chunking=other, access=rules)})
        assert "another `chunking`" in house.indexes.problems["notes"]
        assert house.indexes.see("notes").is_partial
        # One that opens the index again does so only as a whole.
        house.indexes.apply({"notes": IndexDefinition(chunking=other)})
        assert house.indexes.see("notes").is_partial
