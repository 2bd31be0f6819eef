"""What Ollama's clients rely on beyond embeddings: memory, names, errors, made models."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import ollama
import pytest
from starlette.testclient import TestClient

from embedserve.api.errors import respond
from embedserve.errors import BUSY, OverloadedError
from tests.engine_app import engine_app, writable_home
from tests.live import LiveServer

NAME = "all-minilm"
SKY = "why is the sky blue?"


@pytest.fixture(scope="module")
def app(model_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    home = writable_home(model_home, tmp_path_factory.mktemp("conformance"))
    with engine_app(home) as client:
        body = {"model": "brief", "from": NAME, "parameters": {"num_ctx": 64}, "stream": False}
        assert client.post("/api/create", json=body).json() == {"status": "success", "warnings": []}
        yield client


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def running(app: TestClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = app.get("/api/ps").json()["models"]
    return found


# -- names and bodies -------------------------------------------------------------------------

BAD = "bad name!"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("POST", "/api/embed", {"model": BAD, "input": [1]}, 400, "invalid model name"),
        ("POST", "/api/embed", {"model": "nope", "input": [1]}, 400, "invalid input type"),
        ("POST", "/api/embeddings", {}, 400, "model is required"),
        ("POST", "/api/embeddings", {"model": BAD}, 400, "invalid model name"),
        (
            "POST",
            "/api/embeddings",
            {"model": "nope", "prompt": "a"},
            404,
            'model "nope" not found, try pulling it first',
        ),
        ("POST", "/api/generate", {}, 404, "model '' not found"),
        ("POST", "/api/generate", {"model": BAD}, 400, "invalid model name"),
        ("POST", "/api/generate", {"model": "nope"}, 404, "model 'nope' not found"),
        ("POST", "/api/chat", {}, 400, "model is required"),
        ("POST", "/api/chat", {"model": BAD}, 400, "invalid model name"),
        ("POST", "/api/chat", {"model": "nope"}, 404, "model 'nope' not found"),
        ("POST", "/api/pull", {}, 400, "invalid model name"),
        ("POST", "/api/pull", {"model": BAD}, 400, "invalid model name"),
        ("DELETE", "/api/delete", {}, 400, "model is required"),
        ("DELETE", "/api/delete", {"name": BAD}, 400, f'name "{BAD}" is invalid'),
        ("DELETE", "/api/delete", {"model": "nope"}, 404, "model 'nope' not found"),
        ("POST", "/api/copy", {}, 400, 'source "" is invalid'),
        (
            "POST",
            "/api/copy",
            {"source": BAD, "destination": "x"},
            400,
            f'source "{BAD}" is invalid',
        ),
        (
            "POST",
            "/api/copy",
            {"source": NAME, "destination": BAD},
            400,
            f'destination "{BAD}" is invalid',
        ),
        (
            "POST",
            "/api/copy",
            {"source": "nope", "destination": "x"},
            404,
            'model "nope" not found',
        ),
        ("POST", "/api/create", {"from": NAME}, 400, "invalid model name"),
        (
            "POST",
            "/api/create",
            {"model": "x"},
            400,
            "neither 'from' or 'files' was specified",
        ),
        (
            "POST",
            "/api/create",
            {"model": "x", "from": "nope"},
            404,
            'model "nope" not found, try pulling it first',
        ),
        ("POST", "/api/tokenize", {"input": "a"}, 404, "model '' not found"),
        (
            "POST",
            "/api/tokenize",
            {"model": "nope"},
            404,
            'model "nope" not found, try pulling it first',
        ),
    ],
)
def test_each_route_refuses_in_the_words_that_its_clients_know(
    app: TestClient, method: str, path: str, body: object, status: int, error: str
) -> None:
    reply = app.request(method, path, json=body)
    assert (reply.status_code, reply.json()) == (status, {"error": error})
    assert reply.headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize(
    "path",
    [
        *("embed", "embeddings", "show", "pull", "copy", "create"),
        *("generate", "chat", "tokenize", "detokenize"),
    ],
)
def test_empty_body_is_named_and_field_names_may_have_any_case(app: TestClient, path: str) -> None:
    reply = app.post(f"/api/{path}", content=b" \n")
    assert (reply.status_code, reply.json()) == (400, {"error": "missing request body"})
    wrong = app.post(f"/api/{path}", json={"MODEL": 5, "SOURCE": 5})
    assert wrong.status_code == 400
    assert "must be a string, not a number" in wrong.json()["error"]


@pytest.mark.parametrize(
    "name",
    [
        "all-minilm",
        "ALL-minilm:LATEST",
        "library/all-minilm",
        "registry.ollama.ai/library/all-minilm:latest",
        "https://registry.ollama.ai/library/all-minilm",
        " all-minilm ",
        "all-minilm:22m",
        "hf.co/sentence-transformers/all-MiniLM-L6-v2",
        "huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
    ],
)
def test_every_spelling_of_a_name_finds_the_model_and_is_echoed(app: TestClient, name: str) -> None:
    reply = app.post("/api/embed", json={"model": name, "input": SKY}).json()
    assert (reply["model"], reply["prompt_eval_count"]) == (name, 8)
    shown = app.get(f"/v1/models/{name.strip()}")
    assert (shown.status_code, shown.json()["id"]) == (200, name.strip())


def test_pull_of_a_name_that_leads_nowhere_says_so_in_known_words(app: TestClient) -> None:
    body = {"name": "no-such-model"}
    steps = lines(app.post("/api/pull", json=body).text)
    assert steps[0] == {"status": "pulling manifest"}
    assert steps[-1]["error"].startswith("pull model manifest: file does not exist")
    whole = app.post("/api/pull", json={**body, "stream": False})
    assert (whole.status_code, whole.json()["error"]) == (404, steps[-1]["error"])


def test_full_queue_has_ollamas_text_and_each_dialects_status() -> None:
    native = respond("/api/embed", OverloadedError(BUSY, retry_after_s=3))
    assert (native.status_code, native.headers["Retry-After"]) == (503, "3")
    # Two spaces, as Ollama has them.
    text = "server busy, please try again.  maximum pending requests exceeded"
    assert json.loads(bytes(native.body)) == {"error": text}
    theirs = respond("/v1/embeddings", OverloadedError(BUSY))
    assert theirs.status_code == 429
    assert json.loads(bytes(theirs.body))["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings"])
@pytest.mark.parametrize(
    ("sent", "read"),
    [
        # JavaScript sends this where it cut a text in the middle of an emoji.
        (b'{"model": "all-minilm", "input": "a \\ud83d"}', "a \ufffd"),
        (b'{"model": "all-minilm", "input": "a \\ud83d\\ude00 \\ude00"}', "a \U0001f600 \ufffd"),
        (b'{"model": "all-minilm", "input": "a b"} {"model": "other"}', "a b"),
        (b' \r\n{"model": "all-minilm", "input": "a b"}]]', "a b"),
    ],
    ids=["half-pair", "pair-and-half", "second-value", "brackets"],
)
def test_what_ollama_reads_is_read(server: LiveServer, path: str, sent: bytes, read: str) -> None:
    reply = server.http.post(path, content=sent)
    assert reply.status_code == 200, reply.text
    assert reply.json() | {"total_duration": 0, "load_duration": 0} == server.http.post(
        path, json={"model": "all-minilm", "input": read}
    ).json() | {"total_duration": 0, "load_duration": 0}


# -- in memory --------------------------------------------------------------------------------


@pytest.mark.parametrize(("route", "field"), [("generate", "response"), ("chat", "message")])
def test_models_are_loaded_and_let_go_by_empty_requests(
    app: TestClient, route: str, field: str
) -> None:
    loaded = app.post(f"/api/{route}", json={"model": NAME, "keep_alive": "5m"}).json()
    assert (loaded["done"], loaded["done_reason"]) == (True, "load")
    assert [model["name"] for model in running(app)] == ["all-minilm:latest"]
    body = {"model": "ALL-MINILM", "keep_alive": 0, "prompt": "", "messages": [], "stream": False}
    gone = app.post(f"/api/{route}", json=body).json()
    assert (gone["model"], gone["done_reason"]) == ("ALL-MINILM", "unload")
    assert gone[field] == {"response": "", "message": {"role": "assistant", "content": ""}}[field]
    assert running(app) == []
    asked = {"model": NAME, "prompt": "Hello", "messages": [{"role": "user", "content": "Hello"}]}
    refused = app.post(f"/api/{route}", json=asked)
    assert (refused.status_code, refused.json()) == (
        400,
        {"error": f'"{NAME}" does not support {route}'},
    )


@pytest.mark.parametrize(
    ("keep_alive", "seconds"),
    [("5m", 300), (90, 90), ("1.5h", 5400), ("120", 120), (-1, None), ("-1m", None)],
)
def test_ps_says_when_a_model_goes(
    app: TestClient, keep_alive: object, seconds: float | None
) -> None:
    body = {"model": "brief", "input": "a", "keep_alive": keep_alive}
    assert app.post("/api/embed", json=body).status_code == 200
    [entry] = [one for one in running(app) if one["name"] == "brief:latest"]
    parsed = ollama.ProcessResponse.model_validate({"models": [entry]}).models[0]
    assert parsed.expires_at is not None
    left = parsed.expires_at - datetime.now(UTC)
    if seconds is None:
        assert left > timedelta(days=365 * 100)
    else:
        assert timedelta(seconds=seconds - 5) < left <= timedelta(seconds=seconds)
    assert (entry["context_length"], entry["size_vram"]) == (64, 0)
    assert len(entry["digest"]) == 64
    assert entry["size"] > 10**6


def test_keep_alive_of_nothing_lets_a_model_go_with_its_request(app: TestClient) -> None:
    body = {"model": "brief", "input": "a", "keep_alive": 0}
    assert app.post("/api/embed", json=body).status_code == 200
    end = datetime.now(UTC) + timedelta(seconds=5)
    while any(one["name"] == "brief:latest" for one in running(app)):
        assert datetime.now(UTC) < end


# -- lists ------------------------------------------------------------------------------------


def test_lists_parse_with_the_clients_types(server: LiveServer) -> None:
    tags = ollama.ListResponse.model_validate_json(server.http.get("/api/tags").content).models
    [listed] = [one for one in tags if not (one.model or "").startswith("rag/")]
    assert listed.digest is not None
    assert int(listed.digest, 16) >= 0
    assert len(listed.digest) == 64
    assert listed.details is not None
    assert listed.details.family == "bert"
    assert server.http.head("/api/tags").status_code == 200
    reply = server.http.post(
        "/api/show", json={"name": NAME}, headers={"User-Agent": "GitHubCopilotChat/1.0"}
    )
    shown = ollama.ShowResponse.model_validate_json(reply.content)
    assert shown.parameters == f"{'num_ctx':<30} 256"
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.basename"] == NAME
    assert "general.basename" not in server.http.post("/api/show", json={"name": NAME}).text
