"""What known clients send, byte for byte, and what they need back; the doctor tries the same."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import httpx
import numpy as np
import orjson
import pytest

from embedserve.cli.doctor import try_client
from embedserve.cli.recordings.calls import Call, Names, Need, Recording, recordings
from embedserve.cli.recordings.needs import KINDS, unpacked
from embedserve.cli.recordings.replay import Outcome, replay, request_of
from tests.live import LiveServer

# The one thing that a server with only `all-minilm` cannot give, and what the doctor says to it.
NAMELESS = ("smart-connections", "/api/tags")


@pytest.fixture
def names(server: LiveServer) -> Names:
    return Names("all-minilm", str(server.http.base_url).rstrip("/"))


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=60, trust_env=False) as http:
        yield http


@pytest.mark.parametrize("name", recordings())
def test_each_client_gets_what_it_needs(name: str, http: httpx.Client, names: Names) -> None:
    client = recordings()[name]
    found = try_client(http, client, names, changes=True)
    failed = {(name, outcome.call.path): outcome for outcome in found.outcomes if outcome.problems}
    if name == NAMELESS[0]:
        assert "embed|bge" in failed.pop(NAMELESS).problems[0]
    assert failed == {}
    for outcome in found.outcomes:
        if not outcome.skipped and outcome.status == 200:
            compare_vectors(outcome, http, names)


def compare_vectors(outcome: Outcome, http: httpx.Client, names: Names) -> None:
    """Every vector must be that of a plain call with the same text, to the last bit."""
    body = orjson.loads(names.fill(outcome.call.body)) if outcome.call.body else {}
    texts = body.get("input") or body.get("prompt")
    if not texts:
        return
    plain = {"model": names.model, "input": texts}
    wanted = http.post(f"{names.url}/api/embed", json=plain).json()["embeddings"]
    assert vectors_in(outcome.answer) == wanted


def vectors_in(answer: dict[str, list[object]]) -> list[object]:
    if "data" in answer:
        rows = [row["embedding"] for row in answer["data"] if isinstance(row, dict)]
        # Single precision either way; in decimal its shortest form, which orjson reads back.
        return [orjson.loads(single(row)) if isinstance(row, str) else row for row in rows]
    return answer.get("embeddings") or [answer["embedding"]]


def single(packed: str) -> bytes:
    return orjson.dumps(np.array(unpacked(packed), "<f4"), option=orjson.OPT_SERIALIZE_NUMPY)


def test_requests_are_sent_byte_for_byte(names: Names) -> None:
    for client in recordings().values():
        for call in client.calls:
            request = request_of(call, names)
            request.read()
            sent = [(key.decode(), value.decode()) for key, value in request.headers.raw]
            counted = {"host", "content-length"}
            assert [pair for pair in sent if pair[0].lower() not in counted] == [
                (key, names.fill(value)) for key, value in call.headers
            ]
            assert request.content.decode() == names.fill(call.body or "")


def test_a_bearer_with_a_blank_and_no_key_is_no_obstacle(names: Names) -> None:
    """Open WebUI and n8n send it; no HTTP library that the others go through lets it out."""
    parts = urlsplit(names.url)
    head = b"GET /api/tags HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer \r\n"
    with socket.create_connection((str(parts.hostname), parts.port or 0), timeout=10) as raw:
        raw.sendall(head + b"Connection: close\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 200 ")


def test_what_a_client_misses_is_named(http: httpx.Client, names: Names) -> None:
    call = recordings()["openwebui"].calls[0]

    def problems(need: Need) -> tuple[str, ...]:
        return replay(http, replace(call, needs=(need,)), names).problems

    assert problems(Need("version", "version")) == ()
    assert "is not version 99.0.0" in problems(Need("version", "version", "99.0.0"))[0]
    assert "is missing" in problems(Need("models/*/name", "text"))[0]
    lost = replay(http, replace(call, path="/nowhere"), names)
    assert lost.problems[0].startswith("status 404 instead of 200")
    gone = replay(http, call, replace(names, url="http://127.0.0.1:9"))
    assert gone.problems[0].startswith("no answer: ")
    text = replay(http, replace(call, path="/"), names)
    assert text.problems == ("not the json that it reads: Ollama is running",)


@pytest.mark.parametrize(
    ("kind", "of", "good", "bad"),
    [
        ("vector", None, [0.6, 0.8], [0.6, 0.9]),
        ("vectors", 2, [[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0]]),
        ("vectors", 1, [[1.0]], []),
        ("packed vector", None, "AACAPw==", "AAAAPw=="),  # 1.0 and 0.5
        ("packed vector", None, "AACAPw==", "no base64"),
        ("count", 1, 3, True),
        ("count", 1, 1, 0),
        ("time", None, "2026-01-02T03:04:05.123456+01:00", "2026-01-02T03:04:05"),
        ("time", None, "2026-01-02T03:04:05Z", "yesterday"),
        ("version", "0.6.4", "0.33.0", "0.5.12"),
        ("version", None, "1.2.3", "1.2.3-rc1"),
        ("digest", None, "0a" * 32, "sha256:" + "0a" * 32),
        ("share", None, 0.5, 1.5),
        ("listing", "a", [{"name": "a:latest"}], [{"name": "ab"}]),
        ("listing like", "embed|bge", [{"name": "x-Embed"}], [{"name": "all-minilm"}]),
        ("containing", "embedding", ["embedding"], ["rerank"]),
        ("match", "^a", "ab", None),
        ("equal", True, True, "true"),
        ("text", None, "", None),
        ("list", 1, [0], []),
        ("object", None, {}, []),
    ],
)
def test_kinds_of_need(kind: str, of: object, good: object, bad: object) -> None:
    assert KINDS[kind](good, of)
    assert not KINDS[kind](bad, of)


def test_calls_that_change_something_and_unnamed_rerankers_are_skipped(
    http: httpx.Client, names: Names
) -> None:
    calls = (
        call("pull", changes="it is pulled"),
        call("rerank", takes_reranker=True),
        call("version"),
    )
    client = Recording("one", "One", "nowhere", "", (), calls)
    found = try_client(http, client, names)
    assert [bool(outcome.skipped) for outcome in found.outcomes] == [True, True, False]
    assert found.is_served


def call(purpose: str, *, changes: str = "", takes_reranker: bool = False) -> Call:
    return Call(
        purpose=purpose,
        method="GET",
        path="/api/version",
        headers=(),
        body=None,
        status=200,
        reply="json",
        needs=(),
        changes=changes,
        remedy="",
        takes_reranker=takes_reranker,
    )
