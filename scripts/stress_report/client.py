"""A client of the two embedding routes that can be there five thousand times at once.

Not here: what is sent when. A request that gets no answer is an answer of its own kind.
"""

import asyncio
import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from embedserve.errors import BUSY
from embedserve.types import Vectors

MODEL = "all-minilm"
Route = Literal["/api/embed", "/v1/embeddings"]
ROUTES: tuple[Route, ...] = ("/api/embed", "/v1/embeddings")

UNREACHABLE, CLOSED, LATE = -1, -2, -3
"""Instead of a status: no connection, a connection that ended, no answer in time."""

# The server lets go of a connection that was quiet for 5 s; one that is about to end is not used.
_REUSED_S = 3.0
_LIMIT_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """What came back, and when."""

    route: Route
    status: int
    sent_s: float
    """When it was sent, of `time.perf_counter`."""
    seconds: float
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def is_refusal(self) -> bool:
        """Tell whether the server said, as this route's clients understand it, to come back."""
        if self.route == "/api/embed":
            return self.status == 503 and json.loads(self.body) == {"error": BUSY}
        wait_s = self.headers.get("retry-after", "")
        return self.status == 429 and wait_s.isdigit() and int(wait_s) >= 1

    @property
    def vectors(self) -> Vectors:
        """Return the vectors that were sent, (texts, dimensions) float32."""
        reply = json.loads(self.body)
        if self.route == "/api/embed":
            return np.array(reply["embeddings"], dtype=np.float32)
        rows = [base64.b64decode(item["embedding"]) for item in reply["data"]]
        return np.stack([np.frombuffer(row, dtype="<f4") for row in rows])


class Connection:
    """One connection; one request at a time."""

    def __init__(self, port: int, *, timeout_s: float) -> None:
        self.used_s = time.perf_counter()
        self._port = port
        self._timeout_s = timeout_s
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether it can take a request."""
        return self._streams is not None

    async def open(self) -> None:
        """Connect; raise OSError."""
        self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=_LIMIT_BYTES)

    async def embed(self, route: Route, texts: Sequence[str]) -> Answer:
        """Send texts and wait for what comes; connect first where that was not done."""
        body: dict[str, object] = {"model": MODEL, "input": list(texts)}
        if route == "/v1/embeddings":
            body["encoding_format"] = "base64"
        content = json.dumps(body).encode()
        head = f"POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"
        sent_s = time.perf_counter()
        status, headers, reply = await self._exchange(head.encode() + content)
        self.used_s = time.perf_counter()
        if status < 0 or headers.get("connection") == "close":
            self.close()
        return Answer(route, status, sent_s, self.used_s - sent_s, headers, reply)

    def close(self) -> None:
        """Leave."""
        if self._streams:
            self._streams[1].close()
            self._streams = None

    async def _exchange(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        if self._streams is None:
            try:
                await self.open()
            except OSError:
                return UNREACHABLE, {}, b""
        assert self._streams is not None
        reader, writer = self._streams
        try:
            async with asyncio.timeout(self._timeout_s):
                writer.write(request)
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                pairs = (line.partition(": ") for line in lines[1:] if line)
                headers = {name.lower(): value for name, _, value in pairs}
                body = await reader.readexactly(int(headers["content-length"]))
        except TimeoutError:
            return LATE, {}, b""
        except (OSError, asyncio.IncompleteReadError):
            return CLOSED, {}, b""
        return int(lines[0].split()[1]), headers, body


class Pool:
    """As many connections as there are requests at once, each used again while it is fresh."""

    def __init__(self, port: int, *, timeout_s: float) -> None:
        self._port = port
        self._timeout_s = timeout_s
        self._free: list[Connection] = []

    async def embed(self, route: Route, texts: Sequence[str]) -> Answer:
        """Send texts over a connection that nobody uses."""
        connection = self._connection()
        answer = await connection.embed(route, texts)
        if connection.is_open:
            self._free.append(connection)
        return answer

    def close(self) -> None:
        """Leave."""
        for connection in self._free:
            connection.close()
        self._free = []

    def _connection(self) -> Connection:
        while self._free:
            connection = self._free.pop()
            if time.perf_counter() - connection.used_s < _REUSED_S:
                return connection
            connection.close()
        return Connection(self._port, timeout_s=self._timeout_s)


def percentile_ms(answers: Sequence[Answer], percent: int) -> float:
    """Return the milliseconds that `percent` of the answers stayed within; NaN without answers."""
    ordered = sorted(answer.seconds for answer in answers)
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000
