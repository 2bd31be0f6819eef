"""Small HTTP servers of tests: on a free port of this machine, for the length of a `with`."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


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


def on_free_port(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    """Return a server that listens already."""
    return ThreadingHTTPServer(("127.0.0.1", 0), handler)
