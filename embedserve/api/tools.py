"""What models can do here: search, fetch, read. Each tool takes a `Call` and its arguments.

Knows nothing of the protocols that bring them: `mcp_protocol.py`, `tool_server.py`. What models are
told of each is in `tool_table.py`.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request

from embedserve.api.keys import may_ingest
from embedserve.api.replies import Services, own_address, services
from embedserve.api.tool_schemas import (
    AddTextArguments,
    ChunksArguments,
    FetchArguments,
    IngestArguments,
    JobArguments,
    NoArguments,
    RangeArguments,
    SearchArguments,
)
from embedserve.errors import InvalidRequestError, NotFoundError
from embedserve.services.document_pages import PageName, TextRange
from embedserve.services.filters import parse_filter
from embedserve.services.search_request import ManyResult, NamedHit, SearchRequest
from embedserve.types import EVERY_DOCUMENT, DocumentHead

SEARCHED = 10
"""Documents that `search` names at the most."""
CANDIDATES = 30
"""Passages looked at for them: a document may have several."""
FETCH_CHARS = 50_000
"""Of text in one answer, 12,000 tokens about; `read_range` gives the rest."""
LEAD_CHARS = 10_000
"""Of text before the passage that was found, in a document longer than that."""
MAX_INDEXES = 32
_ID = re.compile(r"([0-9]+-[0-9a-f]+)(?::([0-9]{1,12})-([0-9]{1,12}))?")


@dataclass(frozen=True)
class Call:
    """Who calls: the services, and what the address of the request says."""

    services: Services
    base_url: str
    """Of this server, as the caller knows it."""
    indexes: tuple[str, ...]
    """Those that the address is limited to (`?index=NAME`); none: every one."""
    may_write: bool

    @classmethod
    def of(cls, request: Request) -> "Call":
        """Read it from a request."""
        return cls(
            services(request),
            own_address(request),
            tuple(dict.fromkeys(request.query_params.getlist("index"))),
            may_ingest(request.scope),
        )

    def url(self, link: str) -> str:
        """Return a link to this server in full."""
        return self.base_url + link

    def allow(self, index: str) -> None:
        """Raise NotFoundError for an index that the address leaves out."""
        if self.indexes and index not in self.indexes:
            raise NotFoundError(f"There is no index `{index}` here. Ask `list_indexes`.")

    async def names(self, asked: Sequence[str] = ()) -> list[str]:
        """Return the indexes to search: those that are asked for, else all that are allowed."""
        for name in asked:
            self.allow(name)
        found = list(asked or self.indexes) or await asyncio.to_thread(self.services.indexes.names)
        if not found:
            raise NotFoundError(
                "There is no index yet. Make one by `embedserve ingest FOLDER --index NAME`."
            )
        if len(found) > MAX_INDEXES:
            raise InvalidRequestError(
                f"There are {len(found)} indexes; {MAX_INDEXES} can be searched at once. Name "
                "some by `indexes`."
            )
        return list(dict.fromkeys(found))


# -- what is answered -------------------------------------------------------------------------


async def search(call: Call, asked: SearchArguments) -> dict[str, Any]:
    """Find documents, as ChatGPT's connectors ask for them."""
    request = SearchRequest((asked.query,), k=CANDIDATES)
    found = await call.services.search.search_many(await call.names(), request)
    shown: dict[int, dict[str, Any]] = {}
    for named in found.hits:
        if len(shown) < SEARCHED:
            shown.setdefault(named.hit.chunk.document_id, _result(call, found, named))
    return {"results": list(shown.values()), **_notes(found)}


def _result(call: Call, found: ManyResult, named: NamedHit) -> dict[str, Any]:
    hit, index = named.hit, found.results[named.name].index
    chunk, pages = hit.passage, call.services.pages
    token = pages.token(index, chunk)
    return {
        "id": f"{token}:{hit.start}-{hit.end}",
        "title": chunk.title or chunk.path,
        "url": call.url(pages.permalink(index, chunk)),
    }


async def search_chunks(call: Call, asked: ChunksArguments) -> dict[str, Any]:
    """Find passages, with their text."""
    request = SearchRequest(
        (asked.query,),
        k=asked.k,
        mode=asked.mode,
        filter=parse_filter(asked.filter) if asked.filter else EVERY_DOCUMENT,
        min_score=asked.min_score,
    )
    found = await call.services.search.search_many(await call.names(asked.indexes), request)
    return {"hits": [_hit(call, found, named) for named in found.hits], **_notes(found)}


def _hit(call: Call, found: ManyResult, named: NamedHit) -> dict[str, Any]:
    hit = named.hit
    return {
        **_result(call, found, named),
        "index": named.name,
        "path": hit.chunk.path,
        "page": hit.chunk.page,
        "heading": list(hit.chunk.heading),
        "start": hit.start,
        "end": hit.end,
        "score": round(hit.score, 4),
        "text": hit.text,
    }


def _notes(found: ManyResult) -> dict[str, Any]:
    """Return what a reader has to know of how it was found; nothing where all was well."""
    results = found.results.values()
    warnings = list(dict.fromkeys(text for one in results for text in one.warnings))
    suggestions = {word: near for one in results for word, near in one.suggestions.items()}
    notes = {"warnings": warnings, "suggestions": {} if found.hits else suggestions}
    return {key: told for key, told in notes.items() if told}


async def fetch(call: Call, asked: FetchArguments) -> dict[str, Any]:
    """Read a document that was found."""
    return await asyncio.to_thread(_fetched, call, asked.id)


def _fetched(call: Call, identifier: str) -> dict[str, Any]:
    head, first, _ = _named(call, identifier)
    # A document that does not fit is read around the passage that was found.
    start = max(0, first - LEAD_CHARS) if head.chars > FETCH_CHARS else 0
    found = call.services.pages.read(head, start=start, max_chars=FETCH_CHARS)
    return {"id": identifier, **_document(call, found)}


async def read_range(call: Call, asked: RangeArguments) -> dict[str, Any]:
    """Read a part of a document."""
    return await asyncio.to_thread(_range, call, asked)


def _range(call: Call, asked: RangeArguments) -> dict[str, Any]:
    head, _, _ = _named(call, asked.id)
    if asked.end <= asked.start:
        raise InvalidRequestError("`end` must be larger than `start`.")
    size = min(asked.end - asked.start, FETCH_CHARS)
    found = call.services.pages.read(head, start=asked.start, max_chars=size)
    return {"id": asked.id, **_document(call, found)}


def _document(call: Call, found: TextRange) -> dict[str, Any]:
    head = found.head
    return {
        "title": head.title or head.path,
        "text": found.text,
        "url": call.url(call.services.pages.link(head)),
        "metadata": {
            **orjson.loads(head.metadata),
            "index": head.index,
            "path": head.path,
            "start": found.start,
            "end": found.end,
            "length": head.chars,
        },
    }


def _named(call: Call, identifier: str) -> tuple[DocumentHead, int, int]:
    """Return the document that an id names, and the passage: from 0 to 0 where it names none."""
    match = _ID.fullmatch(identifier)
    if not match:
        raise InvalidRequestError("`id` is none of those that `search` gives. Search first.")
    head = call.services.pages.head(PageName(match[1]))
    call.allow(head.index)
    return head, int(match[2] or 0), int(match[3] or 0)


async def list_indexes(call: Call, _: NoArguments) -> dict[str, Any]:
    """List the indexes."""
    return {"indexes": await asyncio.to_thread(_listed, call)}


def _listed(call: Call) -> list[dict[str, Any]]:
    known = call.services.indexes
    names = [name for name in known.names() if not call.indexes or name in call.indexes]
    reports = [known.describe(name) for name in names]
    return [
        {
            "name": report.index.name,
            "documents": report.counts.documents,
            "chunks": report.counts.chunks,
            "model": report.index.model,
        }
        for report in reports
    ]


async def add_text(call: Call, asked: AddTextArguments) -> dict[str, Any]:
    """Add a text to an index."""
    call.allow(asked.index)
    documents = call.services.documents

    def added() -> str:
        upload = documents.receive_text(asked.index, asked.text, asked.name)
        try:
            upload.title, upload.metadata = asked.title, asked.metadata
            return documents.accept(asked.index, [upload]).id
        finally:
            upload.file.close()

    return {"job": await asyncio.to_thread(added)}


async def ingest_path(call: Call, asked: IngestArguments) -> dict[str, Any]:
    """Begin to read a folder or file."""
    call.allow(asked.index)
    job = await asyncio.to_thread(call.services.ingestion.submit, asked.index, asked.path)
    return {"job": job.id}


async def get_job(call: Call, asked: JobArguments) -> dict[str, Any]:
    """Tell how far a job is."""
    job = (await asyncio.to_thread(call.services.ingestion.report, asked.job)).job
    call.allow(job.index)
    return {
        "job": job.id,
        "index": job.index,
        "status": job.status,
        "counts": job.counts,
        "error": job.error,
    }
