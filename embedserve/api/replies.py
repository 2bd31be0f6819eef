"""What every dialect needs to answer: the services, and JSON written straight from arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request, Response

from embedserve.services.archives import ArchiveService
from embedserve.services.chat import ChatService
from embedserve.services.document_pages import DocumentPages
from embedserve.services.documents import DocumentService
from embedserve.services.embedding import EmbeddingService
from embedserve.services.extraction import ExtractionService
from embedserve.services.health import HealthService
from embedserve.services.index_check import IndexCheck
from embedserve.services.indexes import IndexService
from embedserve.services.ingestion import IngestionService
from embedserve.services.memory import FreedMemory
from embedserve.services.metrics import Metrics
from embedserve.services.model_library import ModelLibrary
from embedserve.services.originals import Originals
from embedserve.services.rebuild import RebuildService
from embedserve.services.reranking import RerankingService
from embedserve.services.search import SearchService
from embedserve.services.sent_files import FileService


@dataclass(frozen=True)
class Services:
    """The use cases that the dialects translate to."""

    embedding: EmbeddingService
    reranking: RerankingService
    models: ModelLibrary
    indexes: IndexService
    ingestion: IngestionService
    search: SearchService
    chat: ChatService
    checks: IndexCheck
    rebuilds: RebuildService
    archives: ArchiveService
    documents: DocumentService
    files: FileService
    pages: DocumentPages
    originals: Originals
    extraction: ExtractionService
    health: HealthService
    metrics: Metrics
    freed: FreedMemory


def services(request: Request) -> Services:
    """Return the services of the app that serves this request."""
    found: Services = request.app.state.services
    return found


def own_address(request: Request) -> str:
    """Return where links to this server lead: EMBEDSERVE_PUBLIC_URL, or as the caller knows it."""
    return request.app.state.public_url or str(request.base_url).rstrip("/")


@dataclass(frozen=True)
class Reply:
    """An answer of status 200, ready to be sent."""

    body: bytes
    headers: list[tuple[bytes, bytes]]
    truncated: int = 0
    """Texts that were cut."""


def fast_reply(
    value: object,
    *,
    truncated: Sequence[int] = (),
    media_type: bytes = b"application/json; charset=utf-8",
) -> Reply:
    """Return JSON as `json_reply` does, for the routes of `hot`."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY, default=_default)
    headers = [(b"content-type", media_type), (b"content-length", b"%d" % len(body))]
    told = _truncation(truncated)
    headers += [(name.lower().encode(), text.encode()) for name, text in told.items()]
    return Reply(body, headers, len(truncated))


def json_reply(
    value: object,
    *,
    status: int = 200,
    media_type: str = "application/json; charset=utf-8",
) -> Response:
    """Return JSON; float32 arrays are written in their shortest exact form."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY, default=_default)
    return Response(body, status, None, media_type)


def _truncation(positions: Sequence[int]) -> dict[str, str]:
    """Return the headers that tell which texts were cut."""
    if not positions:
        return {}
    shown = ",".join(str(position) for position in positions[:100])
    return {"X-Truncated-Inputs": shown, "X-Truncated-Count": str(len(positions))}


def _default(value: Any) -> Any:  # noqa: ANN401  orjson's own signature
    # A slice of an array may not be contiguous, which orjson does not take.
    return value.tolist()
