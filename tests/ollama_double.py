"""A small upstream that speaks Ollama's streams, and misbehaves as tests ask it to."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.loopback_server import doubling

WAIT_S = 5


@dataclass
class Upstream:
    """What an upstream saw, and the gates that it waits at."""

    url: str
    gate: threading.Event = field(default_factory=threading.Event)
    """`slow` bodies are read, and the rest of streams is sent, once this is set."""
    left: threading.Event = field(default_factory=threading.Event)
    """The other side closed the connection before its answer was complete."""
    requests: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    """Method and path, headers in lower case, and the sha256 of the body."""

    def forget(self) -> None:
        """Close the gates and drop what was seen."""
        self.gate.clear()
        self.left.clear()
        self.requests.clear()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: Upstream

    def do_GET(self) -> None:
        self._note(b"")
        lists = {
            "/api/tags": {"models": [{"name": "ALL-minilm:latest"}, {"name": "llama3.2:latest"}]},
            "/api/ps": {"models": None},
            "/v1/models": {"data": [{"id": "llama3.2:latest"}]},
        }
        if found := lists.get(self.path):
            self._whole(200, json.dumps(found).encode())
        else:
            self._whole(404, b'{"error": "not here"}')

    def do_HEAD(self) -> None:
        self._note(b"")
        self._whole(200, b"")

    def do_DELETE(self) -> None:
        self._note(self._body())
        self._whole(200, b"")

    def do_POST(self) -> None:
        if "slow" in self.path:
            self.seen.gate.wait(WAIT_S)
        body = self._body()
        self._note(body)
        model = self.headers.get("x-play", "")
        play = {
            "sse": self._sse, "cut": self._cut, "cut-sse": self._cut_sse, "silent": self._silent,
            "endless": self._endless, "error": self._error, "redirect": self._redirect,
        }.get(model, self._lines)  # fmt: skip
        play()

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _note(self, body: bytes) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        digest = hashlib.sha256(body).hexdigest()
        self.seen.requests.append((f"{self.command} {self.path}", headers, digest))

    def _whole(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Access-Control-Allow-Origin", "http://theirs")
        self.end_headers()
        self.wfile.write(body)

    def _start(self, media_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("X-Theirs", "yes")
        self.end_headers()

    def _part(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def _lines(self) -> None:
        self._start("application/x-ndjson")
        self._part('{"message": {"content": "a"}, "done": false}\n')
        self.seen.gate.wait(WAIT_S)
        self._part('{"done": true}\n')
        self._part("")

    def _sse(self) -> None:
        self._start("text/event-stream")
        self._part('data: {"choices": []}\n\n')
        self.seen.gate.wait(WAIT_S)
        self._part("data: [DONE]\n\n")
        self._part("")

    def _error(self) -> None:
        self._start("application/x-ndjson")
        self._part('{"done": false}\n{"error": "out of memory"}\n')
        self._part("")

    def _cut(self) -> None:
        self._start("application/x-ndjson")
        self._part('{"done": fal')
        self.close_connection = True

    def _cut_sse(self) -> None:
        self._start("text/event-stream")
        self._part('data: {"a": 1}\n\n')
        self.close_connection = True

    def _silent(self) -> None:
        self.seen.gate.wait(WAIT_S)
        self.close_connection = True

    def _endless(self) -> None:
        self._start("application/x-ndjson")
        self._part('{"done": false}\n')
        self.connection.settimeout(WAIT_S)
        if self.connection.recv(1) == b"":
            self.seen.left.set()
        self.close_connection = True

    def _redirect(self) -> None:
        self.send_response(307)
        self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


@contextmanager
def upstream() -> Iterator[Upstream]:
    """Serve on a free port of this machine."""
    with doubling(Upstream(""), _Handler) as seen:
        yield seen
