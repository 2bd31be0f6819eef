"""HTTP/1.1 as the server speaks it: offers to switch to another protocol are passed over.

Java's HTTP client, and so Spring AI and LangChain4j, offers HTTP/2 (`Upgrade: h2c`) with every
request to a plain address. A server may go on as if nothing had been offered; uvicorn's parser
stops after the headers instead, so the request comes without its body
(https://github.com/Kludex/uvicorn/issues/2722).
"""

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_OFFER = (b"upgrade", b"http2-settings")


class PlainHttp(HttpToolsProtocol):
    """uvicorn's protocol, which reads a request with an offer once more, without the offer."""

    def data_received(self, data: bytes) -> None:
        """Parse what came; called by the event loop."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(rest=data[offer.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def on_headers_complete(self) -> None:
        """Start the request, unless it will be read again; called by the parser."""
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the request's body; called by the parser."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

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
