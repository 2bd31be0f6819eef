"""Small HTTP servers of tests: on a free port of this machine, for the length of a `with`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol, TypeVar


@contextmanager
def serving_on(server: ThreadingHTTPServer) -> Iterator[str]:
    """Serve in a thread, and give the address."""
    with server:
        # Seconds between looks at whether to stop; the default of half a second adds up.
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class Double(Protocol):
    """What a double of a server saw, and the gate that its handlers may wait at."""

    url: str
    gate: threading.Event


Seen = TypeVar("Seen", bound=Double)


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: connections that break are what tests are about."""


@contextmanager
def doubling(seen: Seen, handler: type[BaseHTTPRequestHandler]) -> Iterator[Seen]:
    """Serve with a handler that has `seen`, and open the gate at the end."""
    server = _Quiet(("127.0.0.1", 0), type("Handler", (handler,), {"seen": seen}))
    with serving_on(server) as seen.url:
        try:
            yield seen
        finally:
            seen.gate.set()


def on_free_port(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    """Return a server that listens already."""
    return ThreadingHTTPServer(("127.0.0.1", 0), handler)
