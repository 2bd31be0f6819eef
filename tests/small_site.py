"""A web site on this machine whose pages a test writes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.loopback_server import on_free_port, serving_on


@dataclass
class Page:
    """What the site answers; `drip_s` waits between two bytes of it, headers included."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drip_s: float = 0.0


@dataclass
class Site:
    """Pages by path, and what was asked for."""

    url: str = ""
    pages: dict[str, Page] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def put(self, path: str, body: str, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.pages[path] = Page(body.encode(), headers={"Content-Type": "text/html", **named})


@contextmanager
def serving() -> Iterator[Site]:
    site = Site()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.asked.append(self.path)
            page = site.pages.get(self.path, Page(status=404))
            etag = page.headers.get("ETag")
            status, body = page.status, page.body
            if etag and self.headers.get("If-None-Match") == etag:
                status, body = 304, b""
            lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in page.headers.items()]
            whole = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
            try:
                self._send(whole, page.drip_s)
            except OSError:
                return  # the client has left

        def _send(self, whole: bytes, drip_s: float) -> None:
            if not drip_s:
                self.wfile.write(whole)
                return
            for byte in whole:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(drip_s)

        def log_message(self, format: str, *args: object) -> None:
            """Print nothing."""

    with serving_on(on_free_port(Answer)) as site.url:
        yield site
