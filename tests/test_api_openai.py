"""OpenAI's dialect on a live server."""

import base64

import numpy as np
import pytest

from tests.live import LiveServer


def test_float_and_base64_are_the_same_vector(server: LiveServer) -> None:
    body = {"model": "all-minilm", "input": ["one", "two"]}
    plain = server.http.post("/v1/embeddings", json=body).json()
    packed = server.http.post("/v1/embeddings", json={**body, "encoding_format": "base64"}).json()
    for position, (one, other) in enumerate(zip(plain["data"], packed["data"], strict=True)):
        decoded = np.frombuffer(base64.b64decode(other["embedding"]), dtype="<f4")
        assert decoded.tobytes() == np.array(one["embedding"], dtype="<f4").tobytes()
        assert one["index"] == other["index"] == position
    assert plain["usage"] == {"prompt_tokens": 6, "total_tokens": 6}
    assert (plain["object"], plain["model"]) == ("list", "all-minilm")


def test_an_empty_string_is_a_text_here(server: LiveServer) -> None:
    reply = server.http.post("/v1/embeddings", json={"model": "all-minilm", "input": ""}).json()
    assert len(reply["data"]) == 1


INVALID = "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"model": "all-minilm"}, 400, ("invalid input", INVALID, "input", None)),
        ({"model": "all-minilm", "input": []}, 400, ("invalid input", INVALID, "input", None)),
        (
            {"model": "all-minilm", "input": [None]},
            400,
            ("invalid input type", INVALID, "input", None),
        ),
        ({"input": "a"}, 404, ("model '' not found", "not_found_error", None, None)),
        (
            {"model": "nope", "input": "a"},
            404,
            (
                'model "nope" not found, try pulling it first',
                "not_found_error",
                None,
                "model_not_found",
            ),
        ),
        (
            {"model": "all-minilm", "input": "a", "encoding_format": "hex"},
            400,
            (
                "Invalid value for 'encoding_format' = hex. Supported values: ['float', 'base64'].",
                INVALID,
                "encoding_format",
                None,
            ),
        ),
    ],
)
def test_errors_come_in_the_envelope(
    server: LiveServer, body: dict[str, object], status: int, error: tuple[str | None, ...]
) -> None:
    reply = server.http.post("/v1/embeddings", json=body)
    expected = dict(zip(("message", "type", "param", "code"), error, strict=True))
    assert (reply.status_code, reply.json()) == (status, {"error": expected})


@pytest.mark.parametrize("tokens", [[1, 2], [[1, 2], [3]]])
def test_token_ids_are_refused_with_the_way_out(server: LiveServer, tokens: object) -> None:
    reply = server.http.post("/v1/embeddings", json={"model": "all-minilm", "input": tokens})
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith("invalid input type: ")
    assert "check_embedding_ctx_length=False" in reply.json()["error"]["message"]


@pytest.mark.parametrize("dimensions", [-1, 0, 385, 10**6])
def test_dimensions_that_the_model_cannot_give_are_refused(
    server: LiveServer, dimensions: int
) -> None:
    body = {"model": "all-minilm", "input": "a", "dimensions": dimensions}
    reply = server.http.post("/v1/embeddings", json=body)
    assert reply.status_code == 400
    assert "384" in reply.json()["error"]["message"]
    assert reply.json()["error"]["type"] == "invalid_request_error"
    # Ollama's own route takes the same number for "all".
    other = server.http.post("/api/embed", json=body)
    assert len(other.json()["embeddings"][0]) == 384


@pytest.mark.parametrize("dimensions", [1, 100, 384])
def test_dimensions_that_the_model_can_give_are_given(server: LiveServer, dimensions: int) -> None:
    body = {"model": "all-minilm", "input": "a", "dimensions": dimensions}
    [one] = server.http.post("/v1/embeddings", json=body).json()["data"]
    assert len(one["embedding"]) == dimensions


def test_models_are_listed_and_found(server: LiveServer) -> None:
    listed = server.http.get("/v1/models").json()
    installed = [one["id"] for one in listed["data"] if one["owned_by"] != "rag"]
    assert installed == ["all-minilm:latest"]
    assert server.http.get("/v1/models/all-minilm").json()["id"] == "all-minilm"
    unknown = server.http.get("/v1/models/org/nope")
    assert unknown.status_code == 404
    assert unknown.json()["error"]["type"] == "not_found_error"
