"""Queries that have too little time."""

import asyncio
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from embedserve.engine.tokenizer import TokenizedText
from embedserve.errors import DeadlineError, OverloadedError
from embedserve.services.encoders import Encoders
from embedserve.services.index_worker import IndexWorker
from embedserve.services.indexes import IndexService
from embedserve.services.reranking import RerankingService
from embedserve.services.search import SearchService
from embedserve.services.search_request import SearchRequest
from embedserve.store.catalog import Catalog
from embedserve.store.vector_index import VectorIndex
from embedserve.types import EncoderSpec, Index, Lane, Vectors
from tests.fakes import MemoryVectorIndex
from tests.store_samples import catalog_with_index, document, drain, unit_vectors


class StuckEncoder:
    """Gives no vector."""

    def __init__(self, error: Exception | None = None) -> None:
        path = Path("unused")
        self.spec = EncoderSpec("a" * 64, path, path, max_tokens=8, dimensions=2)
        self.error = error
        self.submitted: list[tuple[Future[Vectors], float | None]] = []

    def tokenize(self, texts: list[str]) -> list[TokenizedText]:
        return [TokenizedText(np.array([1]), is_truncated=False) for _ in texts]

    def submit(
        self, texts: list[TokenizedText], *, lane: Lane, timeout_s: float | None
    ) -> "Future[Vectors]":
        if self.error:
            raise self.error
        future: Future[Vectors] = Future()
        self.submitted.append((future, timeout_s))
        return future


class OneEncoder:
    def __init__(self, encoder: StuckEncoder) -> None:
        self.encoder = encoder

    def get(self, name: str) -> StuckEncoder:
        return self.encoder


class OneIndex:
    def find(self, name: str) -> Index:
        return Index(1, name, "{}", "one", "a" * 64, 2, "now", 1)

    def check_vectors(self, index: Index, encoder: StuckEncoder) -> list[str]:
        return []


def dense(k: int, *, timeout_s: float | None = None) -> SearchRequest:
    """Ask for chunks as they are, by vectors."""
    return SearchRequest(("question",), k, passage_tokens=0, mode="dense", timeout_s=timeout_s)


def search(encoder: StuckEncoder, catalog: Catalog, *, timeout_s: float) -> SearchService:
    return SearchService(
        catalog,
        cast(IndexService, OneIndex()),
        (cast(VectorIndex, object()), cast(IndexWorker, object())),
        cast(Encoders, OneEncoder(encoder)),
        cast(RerankingService, object()),
        timeout_s=timeout_s,
    )


@pytest.mark.parametrize(
    ("of_server_s", "of_query_s"), [(0, 0.05), (0.05, None), (0.05, 60), (60, 0.05)]
)
def test_query_past_its_deadline_fails_and_its_text_is_dropped(
    tmp_path: Path, of_server_s: float, of_query_s: float | None
) -> None:
    encoder = StuckEncoder()
    with Catalog(tmp_path / "catalog.sqlite3") as catalog:
        asked = search(encoder, catalog, timeout_s=of_server_s)
        started = time.monotonic()
        with pytest.raises(DeadlineError, match=r"within 0\.05 s"):
            asyncio.run(asked.search("any", dense(3, timeout_s=of_query_s)))
        assert time.monotonic() - started < 2
    [(future, timeout_s)] = encoder.submitted
    assert future.cancelled()
    assert timeout_s is not None
    assert timeout_s <= 0.05


def test_full_queue_is_no_deadline_of_a_query(tmp_path: Path) -> None:
    encoder = StuckEncoder(OverloadedError("server busy", retry_after_s=3))
    with Catalog(tmp_path / "catalog.sqlite3") as catalog:
        asked = search(encoder, catalog, timeout_s=60)
        with pytest.raises(OverloadedError, match="server busy"):
            asyncio.run(asked.search("any", dense(3)))


class QuickEncoder(StuckEncoder):
    """Gives the same vector for every text."""

    def submit(
        self, texts: list[TokenizedText], *, lane: Lane, timeout_s: float | None
    ) -> "Future[Vectors]":
        future: Future[Vectors] = Future()
        future.set_result(unit_vectors(1))
        return future


class ReadyWorker:
    def is_ready(self, key: int) -> bool:
        return True


def quick_search(catalog: Catalog, vector_index: MemoryVectorIndex) -> SearchService:
    indexes = SimpleNamespace(find=catalog.indexes.get, check_vectors=lambda *_: [])
    return SearchService(
        catalog,
        cast(IndexService, indexes),
        (vector_index, cast(IndexWorker, ReadyWorker())),
        cast(Encoders, OneEncoder(QuickEncoder())),
        cast(RerankingService, object()),
    )


def test_an_index_that_is_mostly_on_its_way_is_searched_exactly_and_says_so(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        asked = quick_search(catalog, MemoryVectorIndex())
        few = document("/d/a", [f"text {n}" for n in range(40)])
        catalog.documents.commit(index, few, job_id=job, outcome="added")
        result = asyncio.run(asked.search("notes", dense(3)))
        assert (result.is_exact, result.warnings, len(result.hits)) == (False, [], 3)
        many = document("/d/b", [f"text {n}" for n in range(1001)])
        catalog.documents.commit(index, many, job_id=job, outcome="added")
        result = asyncio.run(asked.search("notes", dense(3)))
        assert (result.is_exact, len(result.hits)) == (True, 3)
        assert "on its way to the vector index" in result.warnings[0]


@pytest.mark.parametrize("is_applied", [True, False])
def test_a_text_of_many_files_is_one_hit_that_names_them(tmp_path: Path, is_applied: bool) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        vector_index = MemoryVectorIndex()
        for number in range(14):
            version = document(f"/d/{number}", ["licence", f"text {number % 2}", f"own {number}"])
            catalog.documents.commit(index, version, job_id=job, outcome="added")
        if is_applied:
            drain(catalog, vector_index, index)
        result = asyncio.run(quick_search(catalog, vector_index).search("notes", dense(1000)))
        assert (result.is_exact, result.warnings) == (False, [])
        hits = {hit.chunk.text: hit for hit in result.hits}
        assert len(hits) == len(result.hits) == 1 + 2 + 14
        paths = [place.path for place in (hits["licence"].chunk, *hits["licence"].also_in)]
        assert (paths, hits["licence"].places) == ([f"/d/{n}" for n in range(11)], 14)
        assert [place.path for place in hits["text 1"].also_in] == [
            f"/d/{number}" for number in range(3, 14, 2)
        ]
        assert (hits["own 3"].also_in, hits["own 3"].places) == ((), 1)
        few = asyncio.run(quick_search(catalog, vector_index).search("notes", dense(3)))
        assert len({hit.chunk.text for hit in few.hits}) == len(few.hits) == 3


def test_chunks_that_wait_for_the_full_text_are_told_of_and_found_by_vectors(
    tmp_path: Path,
) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        vector_index = MemoryVectorIndex()
        catalog.documents.commit(
            index, document("/d/a", ["oak", "elm"]), job_id=job, outcome="added"
        )
        drain(catalog, vector_index, index)
        asked = quick_search(catalog, vector_index)
        request = SearchRequest(("oak",), passage_tokens=0)
        found = asyncio.run(asked.search("notes", request))
        assert (len(found.hits), found.warnings) == (2, [])
        catalog.lexical.begin_anew(index.id)
        found = asyncio.run(asked.search("notes", request))
        assert (len(found.hits), found.mode) == (2, "hybrid")
        assert found.warnings == ["2 chunks are not in the full text yet; only vectors find them."]
        assert all(hit.scores.bm25 is None for hit in found.hits)
