"""Queries that have too little time."""

import asyncio
import time
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from embedserve.engine.encoder import Encoder
from embedserve.engine.tokenizer import TokenizedText
from embedserve.errors import DeadlineError, OverloadedError
from embedserve.services.dense_leg import DenseLeg
from embedserve.services.encoders import Encoders
from embedserve.services.index_worker import IndexWorker
from embedserve.services.indexes import IndexService
from embedserve.services.reranking import RerankingService
from embedserve.services.search import SearchLimits, SearchService
from embedserve.services.search_answer import AnswerMaker
from embedserve.services.search_candidates import CandidateFinder
from embedserve.services.search_request import SearchRequest
from embedserve.services.viewing import Sight, sight_of
from embedserve.store.catalog import Catalog
from embedserve.store.vector_index import VectorIndex
from embedserve.types import EncoderSpec, Index, Lane, ScoredIds, SqlCondition, Vectors
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
    def see(self, name: str) -> Sight:
        return sight_of(Index(1, name, "{}", "one", "a" * 64, 2, "now", 1))

    def check_vectors(self, index: Index, encoder: StuckEncoder) -> list[str]:
        return []


def dense(k: int, *, timeout_s: float | None = None) -> SearchRequest:
    """Ask for chunks as they are, by vectors."""
    return SearchRequest(("question",), k, passage_tokens=0, mode="dense", timeout_s=timeout_s)


def search(encoder: StuckEncoder, catalog: Catalog, *, timeout_s: float) -> SearchService:
    return SearchService(
        catalog,
        cast(IndexService, OneIndex()),
        DenseLeg(catalog, cast(VectorIndex, object()), cast(IndexWorker, object())),
        cast(Encoders, OneEncoder(encoder)),
        cast(RerankingService, object()),
        SearchLimits(timeout_s=timeout_s),
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

    def hurry(self) -> None: ...


def quick_search(catalog: Catalog, vector_index: MemoryVectorIndex) -> SearchService:
    indexes = SimpleNamespace(
        see=lambda name: sight_of(catalog.indexes.get(name)), check_vectors=lambda *_: []
    )
    return SearchService(
        catalog,
        cast(IndexService, indexes),
        DenseLeg(catalog, vector_index, cast(IndexWorker, ReadyWorker())),
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


def test_texts_are_read_as_far_as_an_answer_needs_them_and_change_nothing(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        words = [" ".join(f"w{n // 2}x{place}" for place in range(30)) for n in range(40)]
        texts = [f"apples {some} version {n % 2}" for n, some in enumerate(words)]
        catalog.documents.commit(index, document("/d/a", texts), job_id=job, outcome="added")
        finder = CandidateFinder(catalog, cast(DenseLeg, object()))
        encoder = cast(Encoder, QuickEncoder())
        # Of each there are two that say the same: more are looked at than are answered with.
        request = SearchRequest(
            ("apples",), k=12, passage_tokens=0, mode="lexical", fusion="scores", explains=True
        )
        answers = []
        for at_once in (1, 16, 1000):
            found = finder.find(index, encoder, request, None, None)
            found.at_once = at_once
            chosen = AnswerMaker(catalog).choose(found, request)
            answers.append(
                (
                    [(one.id, one.cosine, one.found.score) for one in chosen.kept],
                    [*map(chosen.scores, chosen.kept)],
                    chosen.alike,
                    chosen.dropped,
                )
            )
            assert (len(chosen.kept), bool(chosen.dropped)) == (12, True)
            looked_at = len(chosen.kept) + len(chosen.dropped)
            assert looked_at <= len(found.ranked) < looked_at + at_once
        assert answers[0] == answers[1] == answers[2]


def test_a_document_that_goes_between_legs_and_answer_is_not_in_it(tmp_path: Path) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        for path in ("/d/a", "/d/b"):
            version = document(path, [f"apples of {path}"])
            catalog.documents.commit(index, version, job_id=job, outcome="added")
        finder = CandidateFinder(catalog, cast(DenseLeg, object()))
        request = SearchRequest(("apples",), k=5, passage_tokens=0, mode="lexical", fusion="scores")
        found = finder.find(index, cast(Encoder, QuickEncoder()), request, None, None)
        catalog.documents.delete(index, "/d/a", job_id=job)
        chosen = AnswerMaker(catalog).choose(found, request)
        assert [one.text.chunks[0].path for one in chosen.kept] == ["/d/b"]


class CountingIndex(MemoryVectorIndex):
    """Notes how many were asked for each time."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []

    def search(self, key: int, vector: NDArray[np.float32], *, count: int) -> ScoredIds:
        self.counts.append(count)
        return super().search(key, vector, count=count)


@pytest.mark.parametrize(("every", "asked"), [(2, [40]), (10, [40, 160]), (200, [40, 160])])
def test_a_filter_is_met_by_the_nearest_of_those_that_meet_it(
    tmp_path: Path, every: int, asked: list[int]
) -> None:
    with catalog_with_index(tmp_path) as (catalog, index, job):
        vector_index = CountingIndex()
        for number in range(400):
            path = f"/{'in' if number % every == 0 else 'out'}/{number}"
            version = document(path, [f"text {number}"])
            catalog.documents.commit(index, version, job_id=job, outcome="added")
        drain(catalog, vector_index, index)
        leg = DenseLeg(catalog, vector_index, cast(IndexWorker, ReadyWorker()))
        among = SqlCondition("d.path GLOB ?", ("/in/*",))
        inside = catalog.meeting.ids(index.id, among).tolist()
        vector = unit_vectors(1, seed=9)[0]
        stored = catalog.chunks.vectors_of(index, inside)
        order = np.argsort(-(stored.vectors @ vector), kind="stable")[:10]
        wanted = stored.ids[order].tolist()
        known = leg.search(index, vector, count=10, among=among)
        assert [hit.id for hit in known.hits] == wanted
        assert vector_index.counts == []  # few meet it, and which is known
        catalog.set_meta("any", "write")
        found = leg.search(index, vector, count=10, among=among)
        assert [hit.id for hit in found.hits] == wanted
        assert vector_index.counts == asked
