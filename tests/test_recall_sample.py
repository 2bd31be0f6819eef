"""How well the approximate index finds what is nearest: as it is measured, and as Chroma does."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import cast

import numpy as np
import pytest

from embedserve.services.dense_leg import DenseLeg, Found
from embedserve.services.index_worker import IndexWorker
from embedserve.services.recall_sample import Recall, RecallSampler, recall_of
from embedserve.store.catalog import Catalog
from embedserve.store.chroma import ChromaIndex
from embedserve.store.chroma_process import ChromaProcess
from embedserve.types import Index, ScoredIds, Vectors
from tests.fakes import MemoryVectorIndex, scored
from tests.live import LiveServer
from tests.store_samples import catalog_with_index, document, drain, unit_vectors, wait_until
from tests.test_metrics import samples

DIMENSIONS = 384
CHUNKS = 4000
QUESTIONS = 100
COUNT = 100
LEAST = 0.995
"""What is promised at 100 candidates."""


class ForgetfulIndex(MemoryVectorIndex):
    """Finds every second one of the nearest, and waits until it may answer."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = Event()
        self.may_answer.set()
        self.is_asked = Event()

    def search(self, key: int, vector: Vectors, *, count: int) -> ScoredIds:
        self.is_asked.set()
        assert self.may_answer.wait(10)
        return super().search(key, vector, count=2 * count)[::2]


class ReadyWorker:
    def is_ready(self, key: int) -> bool:
        return True

    def hurry(self) -> None: ...

    def suspect(self, key: int) -> None:
        raise AssertionError("nothing is wrong with the index")


@pytest.fixture
def forgetful(tmp_path: Path) -> Iterator[tuple[Catalog, Index, ForgetfulIndex]]:
    """Return an index of 300 texts, all applied."""
    with catalog_with_index(tmp_path) as (catalog, index, job):
        vector_index = ForgetfulIndex()
        texts = document("/d/a", [f"text {n}" for n in range(300)])
        catalog.documents.commit(index, texts, job_id=job, outcome="added")
        drain(catalog, vector_index, index)
        yield catalog, index, vector_index


def sampler_of(
    shelf: tuple[Catalog, Index, ForgetfulIndex], *, share: float = 1.0
) -> RecallSampler:
    catalog, _, vector_index = shelf
    dense = DenseLeg(catalog, vector_index, cast(IndexWorker, ReadyWorker()))
    return RecallSampler(catalog, dense, share=share)


def test_recall_is_the_share_of_the_nearest_that_are_found(
    forgetful: tuple[Catalog, Index, ForgetfulIndex],
) -> None:
    _, index, _ = forgetful
    sampler = sampler_of(forgetful)
    sampler.start()
    try:
        sampler.offer(index, unit_vectors(1, seed=5)[0])
        wait_until(lambda: sampler.recall(index.id), within_s=10)
        assert sampler.recalls() == {"notes": Recall(0.5, 1)}
        sampler.offer(index, unit_vectors(1, seed=6)[0])  # it rests now
        assert sampler.dropped == 1
    finally:
        sampler.stop()


def test_what_comes_while_it_is_busy_or_the_catalog_changes_is_dropped(
    forgetful: tuple[Catalog, Index, ForgetfulIndex],
) -> None:
    catalog, index, vector_index = forgetful
    sampler = sampler_of(forgetful)
    vector_index.may_answer.clear()
    sampler.start()
    try:
        for seed in range(3):
            sampler.offer(index, unit_vectors(1, seed=seed)[0])
        assert sampler.dropped == 2
        assert vector_index.is_asked.wait(10)
        job = catalog.jobs.create("notes", "/d").id
        catalog.documents.commit(index, document("/d/b", ["other"]), job_id=job, outcome="added")
        vector_index.may_answer.set()
        wait_until(lambda: sampler.dropped == 3, within_s=10)
        assert sampler.recall(index.id) is None
    finally:
        sampler.stop()


def test_nothing_is_measured_without_a_share(
    forgetful: tuple[Catalog, Index, ForgetfulIndex],
) -> None:
    _, index, _ = forgetful
    sampler = sampler_of(forgetful, share=0)
    sampler.start()
    sampler.offer(index, unit_vectors(1)[0])
    sampler.stop()
    assert (sampler.dropped, sampler.recalls()) == (0, {})


def test_equally_near_texts_stand_for_each_other() -> None:
    exact = Found(scored({1: 0.9, 2: 0.5}))
    assert recall_of(Found(scored({1: 0.9, 7: 0.5})), exact) == 1
    assert recall_of(Found(scored({1: 0.9, 7: 0.4})), exact) == 0.5
    assert recall_of(Found(scored({})), exact) == 0


def test_a_server_measures_its_queries(quick_home: Path) -> None:
    with LiveServer(quick_home, settings={"EMBEDSERVE_RECALL_SHARE": "1"}) as server:
        server.http.put("/indexes/notes", json={}).raise_for_status()
        assert server.http.get("/indexes/notes").json()["recall"] is None
        documents = [{"text": f"Note {n} of {uuid.uuid4().hex}"} for n in range(20)]
        body = {"documents": documents}
        server.http.post("/indexes/notes/documents?wait=true", json=body).raise_for_status()
        wait_until(lambda: server.counts("notes")["pending"] == 0, within_s=30)

        def is_measured() -> bool:
            assert server.query("notes", "Which note?", k=3)
            return bool(server.http.get("/indexes/notes").json()["recall"])

        wait_until(is_measured, within_s=30)
        recall = server.http.get("/indexes/notes").json()["recall"]
        assert recall["mean"] == 1
        label = (("index", "notes"),)
        assert samples(server)["embedserve_recall", label] == 1
        assert samples(server)["embedserve_recall_samples", label] >= 1


def text_like(count: int, seed: int) -> Vectors:
    """Return unit vectors (count, DIMENSIONS) in clusters of many sizes.

    They spread in 32 directions and a little in all: no easier than 5,000 sentences of SQuAD
    embedded by all-minilm (recall .9988, those .9994; docs/decisions.md).
    """
    random, shape = np.random.default_rng(seed), np.random.default_rng(1)
    basis = np.linalg.qr(shape.normal(size=(DIMENSIONS, 32)))[0].T
    centres = shape.normal(size=(60, 32))
    inner = centres[random.zipf(1.5, size=count) % len(centres)] + random.normal(size=(count, 32))
    rows = inner @ basis + 0.05 * random.normal(size=(count, DIMENSIONS))
    unit: Vectors = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def test_chroma_finds_nearly_all_of_the_nearest(tmp_path: Path) -> None:
    vectors, questions = text_like(CHUNKS, seed=2), text_like(QUESTIONS, seed=3)
    ids = np.arange(CHUNKS)
    process = ChromaProcess(tmp_path / "chroma", tmp_path / "chroma.log", timeout_s=30)
    try:
        assert process.start().status == "up"
        chroma = ChromaIndex(lambda: process.url, timeout_s=60)
        for start in range(0, CHUNKS, 500):
            chroma.upsert(1, ids[start : start + 500], vectors[start : start + 500])
        found = [Found(chroma.search(1, question, count=COUNT)) for question in questions]
        chroma.close()
    finally:
        process.stop()
    scores = questions @ vectors.T  # (questions, chunks)
    nearest = np.argsort(-scores)[:, :COUNT]
    exact = [Found(ScoredIds(best, row[best])) for row, best in zip(scores, nearest, strict=True)]
    assert np.mean([recall_of(*both) for both in zip(found, exact, strict=True)]) >= LEAST
