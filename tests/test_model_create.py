"""Models made from installed ones: other prompts and lengths under names of their own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from embedserve.models import installed, manifest
from tests.engine_app import engine_app, writable_home

NAME = "all-minilm"


@pytest.fixture(scope="module")
def home(model_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return writable_home(model_home, tmp_path_factory.mktemp("create"))


@pytest.fixture(scope="module")
def app(home: Path) -> Iterator[TestClient]:
    with engine_app(home) as client:
        yield client


def create(app: TestClient, model: str, stream: object = False, **parameters: object) -> Any:  # noqa: ANN401
    body = {"model": model, "from": NAME, "parameters": parameters, "stream": stream}
    reply = app.post("/api/create", json=body)
    assert reply.status_code == 200, reply.text
    return reply


def vectors(app: TestClient, model: str, text: str, **fields: object) -> Any:  # noqa: ANN401
    reply = app.post("/api/embed", json={"model": model, "input": text, **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()["embeddings"]


def test_made_model_is_listed_shown_and_deleted(app: TestClient, home: Path) -> None:
    reply = create(app, "Mine-embed:v1", stream=None, num_ctx=100, query_prompt="ask:\n")
    assert reply.headers["content-type"] == "application/x-ndjson"
    steps = [json.loads(line)["status"] for line in reply.text.splitlines()]
    assert steps[0].startswith("using existing layer sha256:")
    assert steps[-2:] == ["writing manifest", "success"]
    [tag] = [one for one in app.get("/api/tags").json()["models"] if one["name"] == "Mine-embed:v1"]
    assert tag["details"]["parent_model"] == "all-minilm:latest"
    assert tag["details"]["context_length"] == 100
    shown = app.post("/api/show", json={"model": "mine-EMBED:v1"}).json()
    assert [line.split(None, 1) for line in shown["parameters"].splitlines()] == [
        ["num_ctx", "100"],
        ["query_prompt", '"ask:\\n"'],
    ]
    assert shown["model_info"]["bert.context_length"] == 100
    made = installed.resolve(home / "models", "mine-embed:v1")
    manifest.verify(made.folder, made.manifest)
    assert made.manifest.digest == tag["digest"]
    assert app.request("DELETE", "/api/delete", json={"model": "mine-embed:v1"}).status_code == 200
    assert app.post("/api/show", json={"model": "mine-embed:v1"}).status_code == 404


def test_prompts_go_in_front_of_texts_that_are_said_to_be_queries(app: TestClient) -> None:
    create(app, "prompted", query_prompt="search_query: ", document_prompt="search_document: ")
    plain = vectors(app, NAME, "search_query: a")
    assert vectors(app, "prompted", "a", input_type="query") == plain
    assert vectors(app, "prompted", "search_query: a") == plain
    assert vectors(app, "prompted", "a", input_type="document") == vectors(
        app, NAME, "search_document: a"
    )
    body = {"model": "prompted", "input": "a", "input_type": "Query"}
    [one] = app.post("/v1/embeddings", json=body).json()["data"]
    assert [one["embedding"]] == plain
    assert vectors(app, NAME, "a", input_type="query") == vectors(app, NAME, "a")


def test_length_is_the_parents_at_most_and_that_is_said(app: TestClient) -> None:
    parameters = {"num_ctx": 8192, "temperature": 0.1}
    body = {"model": "long", "from": NAME, "parameters": parameters, "stream": False}
    said = app.post("/api/create", json={**body, "system": "Be brief.", "license": []}).json()
    assert said["status"] == "success"
    assert "`temperature`" in said["warnings"][0]
    assert said["warnings"][1] == "num_ctx stays at 256, the length of `all-minilm:latest`"
    assert said["warnings"][2] == "left out, as this model does not chat: `system`"
    create(app, "short", num_ctx=64)
    cut = app.post("/api/embed", json={"model": "short", "input": "word " * 100})
    assert cut.headers["X-Truncated-Inputs"] == "0"
    assert cut.json()["prompt_eval_count"] == 64
    assert cut.json()["embeddings"] == vectors(app, NAME, "word " * 62)


@pytest.mark.parametrize(
    ("fields", "status", "error"),
    [
        ({"parameters": {"num_ctx": "64"}}, 400, "`num_ctx` must be a whole number from 64 on"),
        ({"parameters": {"num_ctx": 63}}, 400, "`num_ctx` must be a whole number from 64 on"),
        ({"parameters": {"query_prompt": 1}}, 400, "`query_prompt` must be a string"),
        ({"parameters": {"query_prompt": "a" * 2001}}, 400, "has 2001 characters; 2000 are"),
        ({"parameters": {"input_type": "poem"}}, 400, "must be `query` or `document`"),
        ({"parameters": []}, 400, "`parameters` must be an object"),
        ({"files": {"a": "b"}}, 400, "`files` is not possible here"),
        ({"quantize": "q4_0"}, 400, "`quantize` is not possible here"),
        ({"model": "ALL-minilm:latest"}, 409, "would replace the model"),
        ({"model": "x:fp32"}, 400, "says `fp32`"),
    ],
)
def test_what_cannot_be_made_is_refused(
    app: TestClient, fields: dict[str, object], status: int, error: str
) -> None:
    before = app.get("/api/tags").json()
    reply = app.post("/api/create", json={"model": "x", "from": NAME, **fields})
    assert reply.status_code == status
    assert error in reply.json()["error"]
    assert app.get("/api/tags").json() == before


def test_made_model_outlives_the_server_and_its_parent(model_home: Path, tmp_path: Path) -> None:
    home = writable_home(model_home, tmp_path)
    with engine_app(home) as first:
        create(first, "kept-embed", query_prompt="ask: ", input_type="query")
        expected = vectors(first, "kept-embed", "a")
        # It says what texts are whose request does not.
        assert expected == vectors(first, NAME, "ask: a")
        assert vectors(first, "kept-embed", "a", input_type="document") == vectors(first, NAME, "a")
        assert first.request("DELETE", "/api/delete", json={"model": NAME}).status_code == 200
    with engine_app(home) as second:
        assert vectors(second, "kept-embed", "a") == expected
