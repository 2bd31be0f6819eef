"""How long a client waits is its own to say, in a header."""

import uuid

import pytest

from embedserve.api.hot import timeout_of
from embedserve.errors import InvalidRequestError
from tests.live import LiveServer

HEADER = "X-Request-Timeout-Ms"


def slow() -> list[str]:
    """Return work of about a second that no cache knows."""
    return [f"{uuid.uuid4()} " * 20 for _ in range(100)]


def test_request_past_its_deadline_is_told_so_in_each_dialect(server: LiveServer) -> None:
    for route in ("/api/embed", "/v1/embeddings"):
        body = {"model": "all-minilm", "input": slow()}
        reply = server.http.post(route, json=body, headers={HEADER: "20"})
        assert reply.status_code == 503
        assert reply.headers["Retry-After"] == "1"
        error = reply.json()["error"]
        if route == "/v1/embeddings":
            assert error["type"] == "api_error"
            error = error["message"]
        assert "not done within 0.02 s" in error
        assert HEADER in error


def test_query_past_its_deadline_is_told_so(server: LiveServer) -> None:
    server.http.put("/indexes/deadlines", json={}).raise_for_status()
    asked = {"query": str(uuid.uuid4())}
    reply = server.http.post("/indexes/deadlines/query", json=asked, headers={HEADER: "1"})
    assert reply.status_code == 503
    assert reply.headers["Retry-After"] == "1"
    assert "not done within 0.001 s" in reply.json()["error"]
    reply = server.http.post("/indexes/deadlines/query", json=asked, headers={HEADER: "60000"})
    assert reply.status_code == 200
    reply = server.http.post("/indexes/deadlines/query", json=asked, headers={HEADER: "soon"})
    assert reply.status_code == 400
    server.http.delete("/indexes/deadlines").raise_for_status()


def test_every_route_that_embeds_describes_its_deadline(server: LiveServer) -> None:
    paths = server.http.get("/openapi.json").json()["paths"]
    routes = ("/api/embed", "/api/embeddings", "/v1/embeddings", "/indexes/{name}/query")
    for route in routes:
        assert HEADER in [one["name"] for one in paths[route]["post"]["parameters"]]
        assert "503" in paths[route]["post"]["responses"]


def test_request_within_its_deadline_is_answered(server: LiveServer) -> None:
    body = {"model": "all-minilm", "input": "a"}
    reply = server.http.post("/api/embed", json=body, headers={HEADER: "60000"})
    assert reply.status_code == 200


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon", "", "9" * 400])
def test_other_values_are_refused(server: LiveServer, value: str) -> None:
    body = {"model": "all-minilm", "input": "a"}
    reply = server.http.post("/api/embed", json=body, headers={HEADER: value})
    assert reply.status_code == 400
    assert "whole number of milliseconds" in reply.json()["error"]


def test_header_is_found_among_others() -> None:
    assert timeout_of([(b"host", b"a"), (b"x-request-timeout-ms", b"1500")]) == 1.5
    assert timeout_of([(b"host", b"a")]) is None
    with pytest.raises(InvalidRequestError):
        timeout_of([(b"x-request-timeout-ms", b"\xb2")])


def test_readiness_names_the_engine_too(server: LiveServer) -> None:
    parts = server.http.get("/ready").json()["parts"]
    assert parts == dict.fromkeys(("engine", "model", "catalog", "vector_index"), "ok")
