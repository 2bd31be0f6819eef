"""Chroma's client as far as it is used: a connection, bodies of requests, what its errors mean."""

import json
from base64 import b64encode
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np

from embedserve.errors import VectorStoreError, VectorStoreUnreachableError
from embedserve.store.chroma_package import (
    ChromaError,
    Collection,
    FastAPI,
    NotFoundError,
    Settings,
    System,
)
from embedserve.store.loopback import LOOPBACK, is_http
from embedserve.types import Vectors

CONNECT_TIMEOUT_S = 3.0
NO_ANSWER_STATUSES = (429, 502, 503, 504)  # of a proxy, or of a server too busy to look


def post(
    server: FastAPI, collection: Collection, action: str, body: dict[str, Any]
) -> dict[str, Any]:
    """Send what `Collection` would, without its checks; raises as the client does."""
    place = f"/tenants/{collection.tenant}/databases/{collection.database}"
    path = f"{place}/collections/{collection.id}/{action}"
    answer: dict[str, Any] = server._make_request("post", path, json=body)
    return answer


def rows_of(server: FastAPI, vectors: Vectors) -> list[str] | list[list[float]]:
    """Return each vector as Chroma takes it: base64 of little-endian float32, or numbers."""
    if not server.supports_base64_encoding():
        numbers: list[list[float]] = vectors.tolist()
        return numbers
    return [b64encode(row).decode() for row in np.ascontiguousarray(vectors, "<f4")]


def translation(error: Exception, *, was_closed: bool) -> type[VectorStoreError] | None:
    """Return what a failure of the client means; None for one of ours, which goes through."""
    if isinstance(error, VectorStoreError):
        return None
    # Closed under this call, because another one found the server at a new address.
    if was_closed or isinstance(error, httpx.TransportError):
        return VectorStoreUnreachableError
    if type(error) is Exception:  # the client's class for every answer that it cannot name
        answer = error.__context__
        if isinstance(answer, httpx.HTTPStatusError):
            status = answer.response.status_code
            return VectorStoreUnreachableError if status in NO_ANSWER_STATUSES else VectorStoreError
        return VectorStoreError
    is_of_the_client = isinstance(error, (ChromaError, httpx.HTTPError, json.JSONDecodeError))
    return VectorStoreError if is_of_the_client else None


def is_refusal(error: Exception) -> bool:
    """Tell whether a server that is there, with its collection, did not do a write."""
    if isinstance(error, (NotFoundError, httpx.TransportError)):
        return isinstance(error, httpx.ReadTimeout)
    return translation(error, was_closed=False) is not None


class DirectClient(httpx.Client):
    """A client of this very machine: without proxies, cookies and redirects.

    What asks about them took a third of a call's processor time (1.1 instead of 1.7 ms).
    """

    def __init__(
        self, transport: httpx.HTTPTransport, *, headers: httpx.Headers, timeout: httpx.Timeout
    ) -> None:
        super().__init__(transport=transport, headers=headers, timeout=timeout, trust_env=False)
        self._direct = transport
        self._extensions = {"timeout": timeout.as_dict()}

    def request(self, method: str, url: httpx.URL | str, **options: Any) -> httpx.Response:  # noqa: ANN401
        """Send a body as it is; whatever else is asked for goes the long way."""
        if options.keys() != {"content"}:
            return super().request(method, url, **options)
        place = _parsed(url) if isinstance(url, str) else url
        request = httpx.Request(
            method, place, headers=self.headers, extensions=self._extensions, **options
        )
        response = self._direct.handle_request(request)
        response.request = request
        response.read()
        return response


@lru_cache(maxsize=256)
def _parsed(url: str) -> httpx.URL:
    """Read an address; there are few, and reading one takes .3 ms."""
    return httpx.URL(url)


def connect(url: str, timeout_s: float) -> FastAPI:
    """Make the part of Chroma's client that speaks HTTP, with a deadline on every call.

    `chromadb.HttpClient` wraps it, but asks the server while it is being made, has no timeout, and
    takes the environment's proxy even for this very machine.
    """
    address = urlsplit(url)
    if not is_http(address):
        raise VectorStoreError(f"`{url}` is no address of Chroma. Use one like http://host:8000.")
    settings = Settings(
        chroma_server_host=f"{address.scheme}://{address.netloc}{address.path.rstrip('/')}",
        chroma_server_http_port=address.port or 0,  # ignored in favour of the address, but wanted
        chroma_server_ssl_enabled=address.scheme == "https",
        anonymized_telemetry=False,
    )
    server = FastAPI(System(settings))
    timeout = httpx.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
    headers, limits = server._session.headers, server.http_limits
    if address.hostname in LOOPBACK:
        transport = httpx.HTTPTransport(limits=limits, trust_env=False)
        session: httpx.Client = DirectClient(transport, headers=headers, timeout=timeout)
    else:
        session = httpx.Client(headers=headers, timeout=timeout, limits=limits)
    server._session.close()
    server._session = session
    return server


def reason(error: Exception) -> str:
    """Return the first line of what an error says."""
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__
