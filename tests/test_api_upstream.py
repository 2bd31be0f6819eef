"""In front of an Ollama: who answers what, unbuffered streams, and an upstream that misbehaves."""

import asyncio
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import orjson
import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedserve.api.errors import error_response
from embedserve.api.forward import Forwarder
from embedserve.api.peek import Recording, find_name
from embedserve.api.upstream import UpstreamProxy
from embedserve.bootstrap.address import listen, url_of
from embedserve.services.ownership import Ownership
from embedserve.services.upstream_link import UpstreamAddress, UpstreamLink
from tests.ollama_double import Upstream, upstream

CHAT = {"model": "llama3.2", "messages": []}
FIRST = '{"message": {"content": "a"}, "done": false}\n'


class OneModel(Ownership):
    """Has `all-minilm`, and could pull `nomic-embed-text`."""

    def __init__(self) -> None:
        """Read no folder."""

    def is_ours(self, name: str) -> bool:
        return self.key(name) == self.key("all-minilm")

    def is_pulled_here(self, name: str) -> bool:
        return self.is_ours(name) or name == "nomic-embed-text"


async def ours(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer as a server that has one embedding model."""
    tag = {"name": "all-minilm:latest"}
    lists = {"/api/tags": {"models": [tag], "embedserve": 1}, "/v1/models": {"data": []}}
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
        return
    path = scope["path"]
    if path in lists:
        await Response(orjson.dumps(lists[path]))(scope, receive, send)
        return
    if path not in ("/api/embed", "/api/show", "/api/delete", "/api/pull", "/health"):
        await Response("404 page not found", 404)(scope, receive, send)
        return
    body, is_more = b"", True
    while is_more:
        message = await receive()
        body += message.get("body", b"")
        is_more = message.get("more_body", False)
    name = json.loads(body or b"{}").get("model", "all-minilm")
    if name in ("all-minilm", "nomic-embed-text"):
        await Response(b'{"ours": true}')(scope, receive, send)
    else:
        await error_response(path, 404, f"model '{name}' not found")(scope, receive, send)


@contextmanager
def serving(app: ASGIApp, port: int = 0) -> Iterator[httpx.Client]:
    with listen("127.0.0.1", port) as listener:
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            with httpx.Client(base_url=url_of(listener), timeout=10, trust_env=False) as http:
                yield http
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def front(url: str, **options: float | bool) -> Iterator[httpx.Client]:
    address = UpstreamAddress(url, **options)  # type: ignore[arg-type]  # seconds and one flag
    with serving(UpstreamProxy(ours, UpstreamLink(address), OneModel())) as http:
        yield http


@dataclass(frozen=True)
class Both:
    theirs: Upstream
    http: httpx.Client


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with upstream() as theirs, front(theirs.url) as http:
        yield Both(theirs, http)


@pytest.fixture
def theirs(both: Both) -> Upstream:
    both.theirs.forget()
    return both.theirs


@pytest.fixture
def http(both: Both, theirs: Upstream) -> httpx.Client:
    return both.http


def free_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize(
    ("path", "play", "first", "last"),
    [
        ("/api/chat", "", FIRST, '{"done": true}\n'),
        ("/api/generate", "", FIRST, '{"done": true}\n'),
        ("/v1/chat/completions", "sse", 'data: {"choices": []}\n\n', "data: [DONE]\n\n"),
        ("/v1/unheard-of", "sse", 'data: {"choices": []}\n\n', "data: [DONE]\n\n"),
    ],
)
def test_a_stream_comes_down_as_it_is_sent(
    theirs: Upstream, http: httpx.Client, path: str, play: str, first: str, last: str
) -> None:
    with http.stream("POST", path, json=CHAT, headers={"x-play": play}) as reply:
        parts = reply.iter_text()
        assert next(parts) == first
        # Only now may the upstream send the rest: the first part was held by nobody.
        theirs.gate.set()
        assert "".join(parts) == last
        assert reply.headers["x-theirs"] == "yes"
        assert reply.headers["content-type"].startswith(
            ("application/x-ndjson", "text/event-stream")
        )
    [(request, headers, digest)] = theirs.requests
    assert request == f"POST {path}"
    assert digest == hashlib.sha256(reply.request.content).hexdigest()
    assert headers["content-length"] == str(len(reply.request.content))


def test_an_error_line_in_a_stream_is_passed(theirs: Upstream, http: httpx.Client) -> None:
    reply = http.post("/api/chat", json=CHAT, headers={"x-play": "error"})
    assert reply.text.splitlines()[1] == '{"error": "out of memory"}'


@pytest.mark.parametrize("play", ["cut", "cut-sse"])
def test_a_stream_that_breaks_ends_with_an_error(http: httpx.Client, play: str) -> None:
    reply = http.post("/v1/completions", json=CHAT, headers={"x-play": play})
    assert reply.status_code == 200
    last = reply.text.rstrip("\n").splitlines()[-1]
    error = json.loads(last.removeprefix("data: "))["error"]
    assert "broke off" in (error["message"] if play == "cut-sse" else error)
    assert reply.text.endswith("\n\n" if play == "cut-sse" else "}\n")


def test_a_client_that_leaves_is_seen_by_the_upstream(theirs: Upstream, http: httpx.Client) -> None:
    with http.stream("POST", "/api/chat", json=CHAT, headers={"x-play": "endless"}) as reply:
        assert next(reply.iter_text())
    assert theirs.left.wait(5)


def test_a_client_that_leaves_in_its_body_ends_the_request(
    theirs: Upstream, http: httpx.Client
) -> None:
    whole = b'{"model": "llama3.2", "images": ["' + b"a" * (4 << 20)
    address = (http.base_url.host, http.base_url.port or 0)
    with socket.create_connection(address) as client:
        client.sendall(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\n")
        client.sendall(b"Content-Length: %d\r\n\r\n" % len(whole) + whole[: 3 << 20])
    # The upstream reads to the end of what it was told, or of the connection.
    end_s = time.monotonic() + 5
    while not theirs.requests:
        assert time.monotonic() < end_s
        time.sleep(0.01)
    assert theirs.requests[0][2] != hashlib.sha256(whole).hexdigest()


def test_paths_that_climb_stay_here(theirs: Upstream, http: httpx.Client) -> None:
    address = (http.base_url.host, http.base_url.port or 0)
    for path in (b"/api/../secret", b"/api/%2e%2e/secret", b"/v1/./x"):
        with socket.create_connection(address) as client:
            client.sendall(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path)
            assert client.recv(100).startswith(b"HTTP/1.1 404")
    assert theirs.requests == []


@pytest.mark.parametrize("path", ["/api/rerank", "/v1/rerank", "/v2/rerank", "/rerank"])
def test_routes_that_ollama_has_not_stay_here(
    path: str, theirs: Upstream, http: httpx.Client
) -> None:
    reply = http.post(path, json={"model": "nope"})
    assert (reply.status_code, reply.text) == (404, "404 page not found")
    assert theirs.requests == []


def socket_room() -> int:
    """Return how many bytes a connection may hold by itself on this system; kernels differ."""
    limits = [Path(f"/proc/sys/net/ipv4/tcp_{end}mem") for end in ("r", "w")]
    if not all(path.exists() for path in limits):
        return 16 << 20
    return sum(int(path.read_text().split()[-1]) for path in limits)


def test_a_large_body_goes_up_without_being_held(theirs: Upstream, http: httpx.Client) -> None:
    # Two connections, and the first MiB, in which the model is looked for; the rest is for what
    # the web server and the clients hold of their own.
    room = 2 * socket_room() + (8 << 20)
    size, sent = 2 * room, 0
    head, piece = b'{"model": "llama3.2", "images": ["', b"a" * (1 << 18)
    digest = hashlib.sha256(head)

    def body() -> Iterator[bytes]:
        nonlocal sent
        yield head
        while sent < size:
            sent += len(piece)
            digest.update(piece)
            yield piece

    results: list[httpx.Response] = []
    path = "/api/chat?slow"
    sender = threading.Thread(target=lambda: results.append(http.post(path, content=body())))
    sender.start()
    before = -1
    while sent != before or not sent:  # until nobody takes any more
        before = sent
        time.sleep(0.2)
    held = sent
    theirs.gate.set()
    sender.join()
    assert results[0].status_code == 200
    assert theirs.requests[0][2] == digest.hexdigest()
    assert held < room


def test_headers_of_a_connection_and_of_pages_stay_here(
    theirs: Upstream, http: httpx.Client
) -> None:
    sent = {
        "Authorization": "Bearer theirs",
        "Origin": "http://localhost:3",
        "Connection": "keep-alive, x-private",
        "X-Private": "1",
        "TE": "trailers",
        "X-OpenWebUI-User-Id": "7",
    }
    theirs.gate.set()
    reply = http.post("/api/chat", json=CHAT, headers=sent)
    [(_, headers, _)] = theirs.requests
    assert headers["authorization"] == "Bearer theirs"
    assert headers["x-openwebui-user-id"] == "7"
    assert headers["host"] == theirs.url.removeprefix("http://")
    assert not {"origin", "x-private", "te", "transfer-encoding"} & set(headers)
    assert "access-control-allow-origin" not in http.get("/api/unheard-of").headers
    assert len(reply.headers.get_list("date")) == 1


def test_keys_of_ours_do_not_leave(theirs: Upstream) -> None:
    theirs.gate.set()
    sent = {"Authorization": "Bearer ours", "X-Api-Key": "ours", "Api-Key": "ours"}
    with front(theirs.url, keeps_keys=True) as http:
        http.post("/api/chat", json=CHAT, headers=sent)
        http.get("/api/tags", headers=sent)
    assert len(theirs.requests) == 2
    assert "ours" not in str([headers for _, headers, _ in theirs.requests])


@pytest.mark.parametrize(
    ("method", "path", "body", "is_theirs"),
    [
        ("POST", "/api/embed", {"model": "all-minilm", "input": "a"}, False),
        ("POST", "/api/embed", {"model": "mxbai-embed-large", "input": "a"}, True),
        ("POST", "/api/show", {"model": "all-minilm"}, False),
        ("POST", "/api/show", {"model": "llama3.2"}, True),
        ("DELETE", "/api/delete", {"model": "llama3.2"}, True),
        ("POST", "/api/pull", {"name": "nomic-embed-text"}, False),
        ("POST", "/api/pull", {"model": "llama3.2"}, True),
        ("POST", "/api/push", {"model": "me/llama"}, True),
        ("POST", "/api/create", {"model": "new", "from": "llama3.2"}, True),
        ("HEAD", "/api/blobs/sha256:1", None, True),
        ("GET", "/health", None, False),
        ("GET", "/elsewhere", None, False),
    ],
)
def test_a_model_that_is_here_is_ours_and_others_are_theirs(
    http: httpx.Client,
    theirs: Upstream,
    method: str,
    path: str,
    body: dict[str, str] | None,
    *,
    is_theirs: bool,
) -> None:
    theirs.gate.set()
    reply = http.request(method, path, json=body)
    assert [request for request, *_ in theirs.requests] == ([f"{method} {path}"] * is_theirs)
    if body and is_theirs:
        assert theirs.requests[0][2] == hashlib.sha256(reply.request.content).hexdigest()


def test_a_model_of_ours_generates_nothing(http: httpx.Client, theirs: Upstream) -> None:
    for path, word in (("/api/chat", "chat"), ("/v1/completions", "generate")):
        reply = http.post(path, json={"Model": "all-minilm"})
        assert reply.status_code == 400
        assert f'\\"all-minilm\\" does not support {word}' in reply.text
    assert theirs.requests == []


def test_lists_show_the_models_of_both(http: httpx.Client) -> None:
    tags = http.get("/api/tags").json()
    assert [one["name"] for one in tags["models"]] == ["all-minilm:latest", "llama3.2:latest"]
    assert tags["embedserve"] == 1
    assert [one["id"] for one in http.get("/v1/models").json()["data"]] == ["llama3.2:latest"]
    assert "x-upstream-error" not in http.get("/api/tags").headers


def test_without_the_upstream_ours_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with front(free_url(), connect_timeout_s=1) as http:
        for _ in range(2):
            tags = http.get("/api/tags")
            assert [one["name"] for one in tags.json()["models"]] == ["all-minilm:latest"]
            assert tags.headers["x-upstream-error"] == "unreachable"
        assert http.post("/api/embed", json={"model": "all-minilm"}).json() == {"ours": True}
        native = http.post("/api/chat", json=CHAT)
        assert native.status_code == 502
        assert "cannot be reached" in native.json()["error"]
        assert "127.0.0.1" not in native.text, "where the upstream is, callers need not know"
        openai = http.post("/v1/chat/completions", json=CHAT)
        assert openai.status_code == 502
        assert "EMBEDSERVE_UPSTREAM" in openai.json()["error"]["message"]
    told = [record for record in caplog.records if "cannot be reached" in record.message]
    assert len(told) == 1, "said once, not at every request"
    assert "http://127.0.0.1:" in told[0].message


def test_an_upstream_that_swallows_connections_holds_up_one_list_only() -> None:
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen()  # the system accepts, and nobody ever answers
        with front(f"http://127.0.0.1:{hole.getsockname()[1]}", list_timeout_s=1.5) as http:
            taken_s = []
            for _ in range(3):
                started_s = time.monotonic()
                assert http.get("/api/tags").headers["x-upstream-error"] == "unreachable"
                taken_s.append(time.monotonic() - started_s)
    assert taken_s[0] >= 1.5
    assert max(taken_s[1:]) < 1


def test_an_upstream_that_is_back_is_in_the_lists_again(theirs: Upstream) -> None:
    async def lists() -> list[bytes]:
        link = UpstreamLink(UpstreamAddress(theirs.url))
        link._tell(httpx.ConnectError("refused"))
        forwarder = Forwarder(link)
        scope = {"path": "/api/tags", "raw_path": b"/api/tags", "query_string": b"", "headers": []}
        found = [await forwarder.fetch(scope) for _ in range(2)]
        await forwarder.close()
        return found

    assert all(b"llama3.2" in body for body in asyncio.run(lists()))


@pytest.mark.parametrize("query", [b"a" * 70_000, b"\xff"])
def test_a_query_that_cannot_be_handed_on_is_a_400(theirs: Upstream, query: bytes) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    path = {"path": "/v1/unheard-of", "raw_path": b"/v1/unheard-of", "query_string": query}
    scope = {"type": "http", "method": "GET", "headers": [], **path}
    app = UpstreamProxy(_nothing, UpstreamLink(UpstreamAddress(theirs.url)), OneModel())
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 400
    assert json.loads(sent[1]["body"])["error"]["type"] == "invalid_request_error"
    assert theirs.requests == []


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await Response("404 page not found", 404)(scope, receive, send)


def test_a_body_that_was_answered_is_let_go() -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"a" * 100, "more_body": True}

    async def kept() -> int:
        body = Recording(receive)
        await body()
        body.forget()
        await body()
        return len(body.messages)

    assert asyncio.run(kept()) == 0


def test_a_silent_upstream_is_given_up(theirs: Upstream) -> None:
    with front(theirs.url, timeout_s=0.2) as http:
        reply = http.post("/api/chat", json=CHAT, headers={"x-play": "silent"})
    assert reply.status_code == 504
    assert "silent for 0.2 s" in reply.json()["error"]


def test_statuses_and_redirects_are_passed_as_they_are(http: httpx.Client) -> None:
    moved = http.post("/api/chat", json=CHAT, headers={"x-play": "redirect"})
    assert (moved.status_code, moved.headers["location"]) == (307, "http://127.0.0.1:9/elsewhere")
    assert http.get("/api/none?a=b%20c").json() == {"error": "not here"}


def test_a_server_that_is_its_own_upstream_does_not_go_round() -> None:
    url = free_url()
    app = UpstreamProxy(ours, UpstreamLink(UpstreamAddress(url)), OneModel())
    with serving(app, int(url.rpartition(":")[2])) as http:
        tags = http.get("/api/tags").json()
        assert [one["name"] for one in tags["models"]] == ["all-minilm:latest"]
        assert http.post("/api/chat", json=CHAT).status_code == 404


def test_a_stop_ends_streams_with_an_error(
    theirs: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    play = {"x-play": "endless"}
    with httpx.Client(timeout=10, trust_env=False) as client, ExitStack() as stack:
        with front(theirs.url) as http:
            url = f"{http.base_url}/api/chat"
            reply = stack.enter_context(client.stream("POST", url, json=CHAT, headers=play))
            stream = reply.iter_text()
            parts = [next(stream)]
            # It stops here, and gives the stream a second.
        parts += stream
    assert "The server is stopping" in json.loads("".join(parts).splitlines()[-1])["error"]
    assert theirs.left.wait(5)
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b'{"model": "a"}', "a"),
        (b'{"MODEL": "a"}', "a"),
        (b'{"name": "b", "model": ""}', "b"),
        (b'{"model": 3}', None),
        (b"[1]", None),
        (b"junk", None),
        # Cut off: only what stands in the outermost object counts.
        (
            b'{"tools": [{"model": "no"}], "x": "\\"model\\": 1", "model": "a\\u0062", "b": ["z',
            "ab",
        ),
        (b'{"options": {"model": "no"}, "messages": ["model", "no', None),
        (b'{"messages": "model", "a": 1, "b": "' + b'"' * 50, None),
    ],
)
def test_the_model_is_found_in_whole_and_cut_bodies(head: bytes, name: str | None) -> None:
    assert find_name(head, ("model", "name")) == name
