"""What a server that is told to stop says to those who have not finished asking."""

import json
import signal
import socket
import time
from pathlib import Path

from tests.live import LiveServer

ROUTES = ("/api/embed", "/v1/embeddings", "/indexes/any/query")
DRAIN_S = 1


def begun(port: int, route: str) -> socket.socket:
    """Send the head of a request and the first bytes of its body."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=15)
    head = f"POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    connection.sendall(head.encode() + b'{"model": ')
    return connection


def reply_of(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    connection.close()
    return b"".join(parts)


def test_request_that_is_still_sent_at_the_end_of_the_drain_is_refused(tmp_path: Path) -> None:
    with LiveServer(tmp_path / "home", settings={"EMBEDSERVE_DRAIN_S": str(DRAIN_S)}) as server:
        port = server.http.base_url.port
        assert port
        connections = {route: begun(port, route) for route in ROUTES}
        server.http.get("/api/version").raise_for_status()  # those before have been read
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        replies = {route: reply_of(connection) for route, connection in connections.items()}
        assert DRAIN_S <= time.monotonic() - started < DRAIN_S + 10
        assert server.process.wait(30) == 0
    for route, reply in replies.items():
        head, _, body = reply.partition(b"\r\n\r\n")
        # The status by which clients of each dialect know that they should come back.
        status = b"429" if route == "/v1/embeddings" else b"503"
        assert head.split()[1] == status, reply
        assert b"retry-after: 1" in head.lower()
        assert b"connection: close" in head.lower()
        assert "stopping" in json.dumps(json.loads(body))
    assert "Traceback" not in server.log(), server.log()
