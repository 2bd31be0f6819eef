"""Reranking over HTTP: the shape of each dialect's answer, and of its errors."""

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from embedserve.api.app import AppLimits, create_app
from embedserve.api.replies import Services
from embedserve.bootstrap.engine import Inference
from embedserve.engine.cache import VectorCache
from embedserve.engine.scheduler import Scheduler
from embedserve.services.embedding import EmbeddingService, EmbedLimits
from embedserve.services.encoders import Encoders
from embedserve.services.machine import Machine
from embedserve.services.metrics import Metrics
from embedserve.services.model_library import ModelLibrary
from embedserve.services.reranking import RerankingService
from embedserve.types import BatchTokens
from tests.engine_app import engine_services
from tests.tiny_installed import install_tiny
from tests.tiny_models import Exported
from tests.tiny_tokenizers import WORDS

URL = "http://localhost"
LIMITS = EmbedLimits(small_request_tokens=256, max_texts=20, max_text_bytes=10_000)
DOCUMENTS = [" ".join(WORDS[at : at + 4]) for at in range(5)]
BODY: dict[str, Any] = {"query": "old mill", "documents": DOCUMENTS}
TEI = {"query": "old mill", "texts": DOCUMENTS}
ROUTES = ("/api/rerank", "/v1/rerank", "/v2/rerank", "/rerank")


class Caller:
    """Sends requests to an application in this process, each in an event loop of its own."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.app = create_app(services, AppLimits(1 << 20, (), is_loopback=True))

    def post(self, path: str, body: object, **headers: str) -> httpx.Response:
        return asyncio.run(
            self._send(httpx.Request("POST", URL + path, json=body, headers=headers))
        )

    def get(self, path: str) -> httpx.Response:
        return asyncio.run(self._send(httpx.Request("GET", URL + path)))

    async def _send(self, request: httpx.Request) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app)) as client:
            return await client.send(request)


@pytest.fixture(scope="module")
def caller(
    exported: dict[str, Exported], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Caller]:
    models: Path = tmp_path_factory.mktemp("reranked")
    install_tiny(models, exported["bert-reranker"], "judge")
    install_tiny(models, exported["bert-mean"], "encoder")
    scheduler = Scheduler(workers=1, batch_tokens=BatchTokens(256, 1024), queue_tokens=10_000)
    encoders, cache = Encoders(models, scheduler, device="cpu"), VectorCache(0)
    inference = Inference(
        EmbeddingService(encoders, cache, LIMITS, threads=1),
        RerankingService(encoders, cache, LIMITS, threads=1),
    )
    library = ModelLibrary(models, encoders, Machine("cpu", 1))
    services = engine_services(inference, library, Metrics())
    yield Caller(services)
    for part in (library, services.embedding, services.reranking, encoders, scheduler):
        part.close()


def ranked(rows: list[dict[str, Any]], score: str) -> list[int]:
    """Return the positions of the rows, after making sure that the best comes first."""
    scores = [row[score] for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert all(0 < one < 1 for one in scores)
    return [row["index"] for row in rows]


def test_every_dialect_ranks_alike_and_in_its_shape(caller: Caller) -> None:
    own = caller.post("/api/rerank", {**BODY, "model": "judge"}).json()
    assert own.keys() == {
        *("model", "results", "total_duration", "load_duration", "prompt_eval_count"),
    }
    assert own["model"] == "judge"
    assert [row.keys() for row in own["results"]] == [{"index", "relevance_score"}] * 5
    order = ranked(own["results"], "relevance_score")
    assert sorted(order) == list(range(5))
    first = caller.post("/v1/rerank", BODY).json()
    assert first.keys() == {"id", "results", "meta", "object", "model", "usage"}
    assert (first["object"], first["model"]) == ("list", "judge:latest")
    assert first["meta"]["api_version"] == {"version": "1"}
    assert first["usage"]["total_tokens"] == own["prompt_eval_count"] > 5 * 3
    second = caller.post("/v2/rerank", BODY).json()
    assert second.keys() == {"id", "results", "meta"}
    assert second["meta"]["api_version"] == {"version": "2"}
    assert second["results"] == first["results"] == own["results"]
    bare = caller.post("/rerank", BODY).json()
    assert bare.keys() == first.keys()
    rows = caller.post("/rerank", TEI).json()
    assert [row.keys() for row in rows] == [{"index", "score"}] * 5
    assert ranked(rows, "score") == order


def test_fewer_results_with_their_documents(caller: Caller) -> None:
    documents = [DOCUMENTS[0], {"text": DOCUMENTS[1], "page": 3}, DOCUMENTS[2]]
    body = {"query": "old mill", "documents": documents, "return_documents": True, "top_n": 2}
    whole = caller.post("/v1/rerank", {**body, "top_n": 99}).json()["results"]
    assert len(whole) == 3
    for row in whole:
        given = documents[row["index"]]
        assert row["document"] == ({"text": given} if isinstance(given, str) else given)
    for route in ROUTES:
        assert caller.post(route, body).json()["results"] == whole[:2]
    rows = caller.post("/rerank", {**TEI, "return_text": True}).json()
    assert all(row["text"] == DOCUMENTS[row["index"]] for row in rows)


def test_fields_of_documents_are_ranked_in_the_order_named(caller: Caller) -> None:
    documents = [{"title": "the mill", "body": "grain was ground", "page": 1}, {"body": "only"}]
    named = {"query": "mill", "documents": documents, "rank_fields": ["title", "body"]}
    plain = {"query": "mill", "documents": ["the mill\ngrain was ground", "only"]}
    assert (
        caller.post("/v1/rerank", named).json()["results"]
        == caller.post("/v1/rerank", plain).json()["results"]
    )


def test_raw_scores_are_logits_and_cut_documents_are_named(caller: Caller) -> None:
    body = {**BODY, "documents": [*DOCUMENTS, "mill " * 100], "raw_scores": True}
    reply = caller.post("/v2/rerank", body)
    raw = {row["index"]: row["relevance_score"] for row in reply.json()["results"]}
    assert reply.headers["X-Truncated-Inputs"] == "5"
    assert caller.post("/rerank", {**TEI, "raw_scores": True}).json()[0]["score"] in raw.values()
    rows = caller.post("/v2/rerank", {**body, "raw_scores": False}).json()["results"]
    assert [row["index"] for row in rows] == sorted(raw, key=lambda at: -raw[at])
    for row in rows:
        assert row["relevance_score"] == pytest.approx(1 / (1 + math.exp(-raw[row["index"]])))
    short = caller.post("/v2/rerank", {**BODY, "max_tokens_per_doc": 1})
    assert short.headers["X-Truncated-Count"] == "5"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"query": None}, "`query` is missing or empty"),
        ({"query": " "}, "`query` is missing or empty"),
        ({"query": ["a"]}, "field `query` must be a string, not an array"),
        ({"documents": None}, "`documents` must be a list of at least one text"),
        ({"documents": []}, "`documents` must be a list of at least one text"),
        ({"documents": "a"}, "`documents` must be a list of at least one text"),
        ({"documents": ["a", 1]}, "`documents[1]` must be a string or an object"),
        ({"documents": [{"title": "a"}]}, "`documents[0]` needs text in `text`"),
        ({"documents": [{"text": 1}]}, "`documents[0]` needs text in `text`"),
        ({"rank_fields": "text"}, "`rank_fields` must be a list of field names"),
        ({"top_n": 0}, "`top_n` must be 1 or more, not 0"),
        ({"top_n": "3"}, "field `top_n` must be a whole number"),
        ({"max_tokens_per_doc": -1}, "`max_tokens_per_doc` must be 1 or more"),
        ({"raw_scores": 1}, "field `raw_scores` must be true or false"),
        ({"truncation_direction": "Left"}, "`truncation_direction` can only be `Right`"),
        ({"query": "mill " * 100}, "The query is too long"),
        ({"documents": ["mill " * 100], "truncate": False}, "Document 0 is longer"),
        ({"model": "encoder"}, "gives embeddings: it does not score"),
    ],
)
def test_bad_requests_are_told_what_to_do(
    caller: Caller, change: dict[str, Any], words: str
) -> None:
    reply = caller.post("/v2/rerank", {**BODY, **change})
    assert reply.status_code == 400
    assert words in reply.json()["message"]


def test_errors_come_in_the_shape_of_the_dialect(caller: Caller) -> None:
    bad = {"query": "mill"}
    said = "`documents` must be a list of at least one text."
    shapes = {
        "/api/rerank": {"error": said},
        "/v1/rerank": {"message": said, "detail": said},
        "/v2/rerank": {"message": said},
        "/rerank": {"error": said, "error_type": "Validation"},
    }
    assert {path: caller.post(path, bad).json() for path in ROUTES} == shapes
    both = caller.post("/rerank", {**BODY, **TEI})
    assert both.json()["error"] == "Give either `texts` or `documents`, not both."
    unknown = caller.post("/rerank", {**TEI, "model": "nobody"})
    assert (unknown.status_code, unknown.json()["error_type"]) == (404, "Validation")
    assert {path: caller.post(path, bad).status_code for path in ROUTES} == {
        **dict.fromkeys(ROUTES, 400),
        "/rerank": 422,
    }
    long = {**TEI, "texts": ["mill " * 100]}  # TEI cuts nothing unless it is told to
    assert caller.post("/rerank", {**long, "truncate": True}).status_code == 200
    assert caller.post("/rerank", long).status_code == 413
    many = caller.post("/v1/rerank", {**BODY, "documents": ["a"] * 21})
    assert (many.status_code, "at most 20" in many.json()["detail"]) == (413, True)
    assert caller.get("/v1/rerank").status_code == 405


def test_a_reranker_gives_no_embeddings(caller: Caller) -> None:
    reply = caller.post("/api/embed", {"model": "judge", "input": "a"})
    assert reply.status_code == 400
    assert "`judge:latest` is a reranker" in reply.json()["error"]
    assert "Use `encoder:latest`" in reply.json()["error"]


def test_deadline_of_the_caller_holds(caller: Caller) -> None:
    # 20 documents are more than a tiny model can do in a millisecond.
    body = {**BODY, "documents": ["mill " * 50 + str(at) for at in range(20)]}
    late = caller.post("/v2/rerank", body, **{"X-Request-Timeout-Ms": "1"})
    assert late.status_code == 503
    assert "not done within 0.001 s" in late.json()["message"]
    wrong = caller.post("/v2/rerank", BODY, **{"X-Request-Timeout-Ms": "soon"})
    assert wrong.status_code == 400


def test_routes_are_described(caller: Caller) -> None:
    paths = caller.get("/openapi.json").json()["paths"]
    for route in ROUTES:
        described = paths[route]["post"]
        assert (
            "query"
            in described["requestBody"]["content"]["application/json"]["schema"]["properties"]
        )
        assert "200" in described["responses"]


def test_a_reranker_is_loaded_and_let_go_by_empty_requests(caller: Caller) -> None:
    for keep_alive, reason in ((60, "load"), (0, "unload")):
        reply = caller.post("/api/generate", {"model": "judge", "keep_alive": keep_alive})
        assert (reply.status_code, reply.json()["done_reason"]) == (200, reason)
        running = caller.get("/api/ps").json()["models"]
        assert ("judge:latest" in [one["name"] for one in running]) is (reason == "load")
