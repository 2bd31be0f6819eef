"""HTTP/1.1 as the server speaks it: offers to switch to another protocol are passed over.

Java's HTTP client, and so Spring AI and LangChain4j, offers HTTP/2 (`Upgrade: h2c`) with every
request to a plain address. A server may go on as if nothing had been offered; uvicorn's parser
stops after the headers instead, so the request comes without its body
(https://github.com/Kludex/uvicorn/issues/2722).

What the parser holds of a request is limited: its URL, its headers, and bytes that it cannot tell
anything of yet. Bodies are limited by who reads them.
"""

import http

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LONGEST_URL = 8 * 1024
"""Bytes; nginx and Apache take no more either."""
LARGEST_HEAD = 64 * 1024
"""Bytes of all headers and trailers together."""
_LINGER_S = 2.0
"""How long a client that still sends may take to read why it is refused."""
_OFFER = (b"upgrade", b"http2-settings")


class _RefusedError(Exception):
    """The request passes a limit."""


class PlainHttp(HttpToolsProtocol):
    """uvicorn's protocol, which reads a request with an offer once more, without the offer."""

    _head_bytes = 0
    _held_bytes = 0
    """What came since the parser last told anything but a header."""
    _refusal: tuple[int, str] | None = None

    def data_received(self, data: bytes) -> None:
        """Parse what came; called by the event loop."""
        self._unset_keepalive_if_required()
        if self._refusal:
            return  # nobody reads it any more
        self._held_bytes += len(data)
        try:
            self.parser.feed_data(data)
            # A header is told at its end only, however long the parser has to wait for that.
            if self._held_bytes > 2 * LARGEST_HEAD:
                self._refuse_head()
        except httptools.HttpParserUpgrade as offer:
            self._decline(rest=data[offer.args[0] :])
        except (httptools.HttpParserError, _RefusedError):
            if self._refusal:
                self._send_refusal(*self._refusal)
            else:
                self.send_400_response("Invalid HTTP request received.")

    def on_message_begin(self) -> None:
        """Begin a request; called by the parser."""
        self._head_bytes = self._held_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the URL; called by the parser."""
        if len(self.url) + len(url) > LONGEST_URL:
            self._refusal = (414, f"The URL is longer than {LONGEST_URL} bytes; send it as a body.")
            raise _RefusedError
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header or a trailer; called by the parser."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > LARGEST_HEAD:
            self._refuse_head()
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body; called by the parser."""
        self._held_bytes = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Start the request, unless it will be read again; called by the parser."""
        self._held_bytes = 0
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the request's body; called by the parser."""
        self._held_bytes = 0
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _refuse_head(self) -> None:
        self._refusal = (431, f"The headers are larger than {LARGEST_HEAD} bytes together.")
        raise _RefusedError

    def _send_refusal(self, status: int, message: str) -> None:
        """Answer, and close once the client has read it; an answer under way is cut instead."""
        if self.cycle and not self.cycle.response_complete:
            self.transport.close()
            return
        body = message.encode()
        self.transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: %d\r\nConnection: close\r\n\r\n%s"
            % (status, http.HTTPStatus(status).phrase.encode(), len(body), body)
        )
        # Closed with bytes unread, the connection would be reset and the answer lost.
        self.transport.write_eof()
        self.loop.call_later(_LINGER_S, self.transport.close)

    def _decline(self, rest: bytes) -> None:
        """Read the headers again without the offer, then `rest`, which came after them."""
        method, version = self.parser.get_method(), self.parser.get_http_version()
        if method == b"CONNECT":  # to the parser an offer in itself; this server is no proxy
            self.send_400_response("CONNECT is not served here.")
            return
        lines = [b"%s %s HTTP/%s" % (method, self.url, version.encode())]
        lines += [b"%s: %s" % (name, value) for name, value in self.headers if name not in _OFFER]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"\r\n".join([*lines, b"", b""]) + rest)
