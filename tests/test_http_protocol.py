"""Offers to switch protocols are passed over: the request is answered as if there were none."""

import json
import socket
from urllib.parse import urlsplit

import pytest

from tests.live import LiveServer

BODY = json.dumps({"model": "all-minilm", "input": ["a"]}).encode()
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
COUNTED = b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)


def answer(server: LiveServer, *parts: bytes, replies: int = 1) -> bytes:
    """Send the parts in segments of their own and return what comes back."""
    address = urlsplit(str(server.http.base_url))
    with socket.create_connection((str(address.hostname), address.port or 0), timeout=20) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            raw.sendall(part)
        received = b""
        # Not until the end: a server that sees its client close need not answer any more.
        while received.count(b"HTTP/1.1 ") < replies or not received.endswith(b"}"):
            part = raw.recv(65536)
            received += part
            if not part:
                break
    return received


@pytest.mark.parametrize("body", [COUNTED, CHUNKED], ids=["counted", "chunked"])
@pytest.mark.parametrize("cut", [0, 70, 150, 200])
def test_an_offer_of_http_2_does_not_cost_the_body(
    server: LiveServer, body: bytes, cut: int
) -> None:
    request = b"POST /api/embed HTTP/1.1\r\nHost: 127.0.0.1\r\n" + OFFER + body
    parts = (request[:cut], request[cut:]) if cut else (request,)
    reply = answer(server, *parts)
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert b'"embeddings":[[' in reply
    assert b"101" not in reply.split(b"\r\n")[0]


def test_the_connection_goes_on_after_an_offer(server: LiveServer) -> None:
    first = b"POST /api/embed HTTP/1.1\r\nHost: 127.0.0.1\r\n" + OFFER + COUNTED
    second = b"GET /api/version HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    reply = answer(server, first + second, replies=2)
    assert reply.count(b"HTTP/1.1 200 ") == 2
    assert reply.rstrip().endswith(b"}")


def test_other_offers_and_connect(server: LiveServer) -> None:
    offer = b"Host: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert answer(server, b"GET /api/version HTTP/1.1\r\n" + offer).startswith(b"HTTP/1.1 200 ")
    refused = answer(server, b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ((b"GET /api/tags?" + b"a" * (8 << 10) + b" HTTP/1.1\r\n",), b"414"),
        ((b"GET /", *[b"a" * 1000] * 12), b"414"),
        ((b"GET / HTTP/1.1\r\n" + b"x-a: 1\r\n" * (17 << 10),), b"431"),
        ((b"GET / HTTP/1.1\r\nHost: ", *[b"a" * (128 << 10)] * 6), b"431"),
    ],
    ids=["url", "url in parts", "headers", "a header without an end"],
)
def test_what_a_parser_must_hold_is_limited(
    server: LiveServer, parts: tuple[bytes, ...], status: bytes
) -> None:
    reply = answer(server, *parts)
    assert reply.startswith(b"HTTP/1.1 %s " % status)
    assert b"Connection: close" in reply


def test_urls_and_headers_within_the_limits_are_answered(server: LiveServer) -> None:
    path = b"/api/version?" + b"a" * 8000
    head = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: %s\r\n\r\n" % (path, b"a" * 60_000)
    cut = [head[at : at + 20_000] for at in range(0, len(head), 20_000)]
    assert answer(server, *cut).startswith(b"HTTP/1.1 200 ")
