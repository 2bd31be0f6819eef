"""Load on a server of this machine, from a process of its own that takes little of its cores.

Requests are whole bytes made beforehand, sockets are raw and stay open, and replies are read to
their end but not parsed. One thread serves all clients.
"""

import multiprocessing
import re
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from multiprocessing.synchronize import Event

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_PART_BYTES = 1 << 18
_PATIENCE_S = 120
# Until a load that runs beside something has filled the server's queue.
_FILL_S = 0.5


@dataclass(frozen=True)
class Load:
    """What clients send over and over, each with one request under way."""

    port: int
    requests: Sequence[bytes]
    """Sent in turn, from the first one again after the last; see `request`."""
    clients: int = 1
    seconds: float = 3600.0
    """No call begins after that."""
    calls: int = 1_000_000_000
    """No more of them."""
    every_s: float = 0.0
    """Time from one call to the next, for one client; 0: as soon as the reply is there. A call
    that begins late counts from when it was due."""


@dataclass(frozen=True)
class Outcome:
    """How long each call took, and when it ended."""

    calls_ms: list[float] = field(default_factory=list)
    ends_s: dict[int, list[float]] = field(default_factory=dict)
    """Since the load began, by client."""

    def calls_per_s(self) -> float:
        """Return the sum of the clients' rates, each between its first reply and its last.

        So neither the start counts, when all send at once, nor the end, when some have stopped.
        """
        if any(len(ends) < 2 for ends in self.ends_s.values()) or not self.ends_s:
            raise SystemExit("Too short: a client had fewer than two replies.")
        return sum((len(ends) - 1) / (ends[-1] - ends[0]) for ends in self.ends_s.values())

    def percentile_ms(self, percent: int) -> float:
        """Return the time that `percent` of the calls stayed within."""
        ordered = sorted(self.calls_ms)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def request(path: str, body: bytes) -> bytes:
    """Return the bytes of a POST."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def perform(load: Load, is_over: Callable[[], bool] = lambda: False) -> Outcome:
    """Call until the time or the calls are used up or `is_over`; wait for what is under way."""
    if load.every_s and load.clients > 1:
        raise ValueError("This is a bug: only one client can keep to a rhythm.")
    clients = _Clients(load, is_over)
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        for number in range(load.clients):
            connection = _Connection(load.port, number)
            stack.callback(connection.socket.close)
            selector.register(connection.socket, selectors.EVENT_READ, connection)
            clients.start(connection)
        while clients.busy:
            ready = selector.select(_PATIENCE_S)
            if not ready:
                raise SystemExit(f"The server gave no answer within {_PATIENCE_S} s.")
            for key, _ in ready:
                if key.data.receive():
                    clients.note(key.data)
                    clients.start(key.data)
    return clients.outcome


class _Connection:
    def __init__(self, port: int, number: int) -> None:
        self.number = number
        self.socket = socket.create_connection(("127.0.0.1", port), _PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent_s = 0.0
        self._head = b""
        self._missing: int | None = None

    def send(self, content: bytes, due_s: float) -> None:
        self._head, self._missing, self.sent_s = b"", None, due_s
        self.socket.sendall(content)

    def receive(self) -> bool:
        """Read what has come; tell whether the reply is whole."""
        part = self.socket.recv(_PART_BYTES)
        if not part:
            raise SystemExit("The server closed a connection before its reply was whole.")
        if self._missing is not None:
            self._missing -= len(part)
            return self._missing == 0
        self._head += part
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return False
        found = _LENGTH.search(self._head, 0, end)
        if not self._head.startswith(b"HTTP/1.1 200") or not found:
            raise SystemExit(f"The server answered {self._head[:500]!r}")
        self._missing = end + 4 + int(found[1]) - len(self._head)
        return self._missing == 0


class _Clients:
    def __init__(self, load: Load, is_over: Callable[[], bool]) -> None:
        self.outcome = Outcome()
        self.busy = 0
        self._load, self._is_over = load, is_over
        self._requests = cycle(load.requests)
        self._started = 0
        self._began_s = time.perf_counter()

    def start(self, connection: _Connection) -> None:
        """Send the next request, when it is due, unless it is enough."""
        load, now = self._load, time.perf_counter()
        due_s = self._began_s + self._started * load.every_s if load.every_s else now
        is_enough = self._started >= load.calls or due_s - self._began_s > load.seconds
        if is_enough or self._is_over():
            return
        if due_s > now:
            time.sleep(due_s - now)
        self._started += 1
        self.busy += 1
        connection.send(next(self._requests), due_s)

    def note(self, connection: _Connection) -> None:
        now = time.perf_counter()
        self.busy -= 1
        self.outcome.calls_ms.append((now - connection.sent_s) * 1000)
        self.outcome.ends_s.setdefault(connection.number, []).append(now - self._began_s)


class Client:
    """A process that performs loads, one at a time."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._stop = context.Event()
        self._process = ProcessPoolExecutor(
            1, context, initializer=_take_event, initargs=(self._stop,)
        )

    def run(self, load: Load) -> Outcome:
        """Perform a load and return its outcome."""
        self._stop.clear()
        return self._process.submit(_perform, load).result()

    @contextmanager
    def beside(self, load: Load) -> Iterator[Future[Outcome]]:
        """Keep a load running; its outcome is there after the end, which waits for replies."""
        self._stop.clear()
        running = self._process.submit(_perform, load)
        try:
            time.sleep(_FILL_S)
            yield running
        finally:
            self._stop.set()
            running.result()

    def close(self) -> None:
        """End the process."""
        self._stop.set()
        self._process.shutdown()


_events: list[Event] = []


def _take_event(stop: Event) -> None:
    _events[:] = [stop]


def _perform(load: Load) -> Outcome:
    return perform(load, _events[0].is_set)
