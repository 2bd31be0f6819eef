"""Our own dialect: queries. Shapes: docs/api.md."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from embedserve.api.body import Fields, check_model, describe_body, read_model
from embedserve.api.hot import timeout_of
from embedserve.api.hot_schemas import describe_post
from embedserve.api.replies import Reply, Services, fast_reply, json_reply, services
from embedserve.api.schema_parts import NATIVE_ERROR, PATH_NAME, TIMEOUT, given
from embedserve.api.search_schemas import ANSWER
from embedserve.errors import InvalidRequestError
from embedserve.services.document_pages import DocumentPages
from embedserve.services.filters import FILTER_SCHEMA, parse_filter
from embedserve.services.search_request import (
    MAX_PASSAGE_TOKENS,
    Fusion,
    Hit,
    Mode,
    SearchRequest,
    SearchResult,
)
from embedserve.types import EVERY_DOCUMENT, Index, StoredChunk

router = APIRouter(tags=["indexes"])


class QueryBody(BaseModel):
    """What to look for, and how. What is left out is taken from the definition of the index."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: str | None = Field(default=None, description="The question, as a person asks it.")
    queries: list[str] | None = Field(
        default=None, description="Several ways to ask the same, instead of `query`."
    )
    k: int | None = Field(default=None, description="Passages to return; 1 to 1000.")
    max_tokens: int | None = Field(
        default=None,
        description="Instead of `k`: a budget, filled with the best chunks as they are.",
    )
    passage_tokens: int | None = Field(
        default=None,
        ge=0,
        le=MAX_PASSAGE_TOKENS,
        description="How far a hit is joined with its neighbours, about; 0: not at all.",
    )
    mode: Mode | None = Field(default=None, description="By vectors and words, or by one of them.")
    fusion: Fusion | None = Field(default=None, description="How the two are made one order.")
    filter: Annotated[
        dict[str, Any] | None,
        Field(description="Documents to look in: docs/api.md, Filters."),
        WithJsonSchema(FILTER_SCHEMA),
    ] = None
    min_score: float | None = Field(
        default=None, ge=0, le=1, description="Leave out hits of a smaller score."
    )
    diversity: float | None = Field(
        default=None, ge=0, le=1, description="How much a hit loses for what better ones say too."
    )
    rerank: bool | str | None = Field(
        default=None, description="Order the best anew by a reranker: its name, or true."
    )
    rerank_timeout_ms: int | None = Field(default=None, ge=1, le=600_000)
    exact: bool = Field(default=False, description="Compare every vector.")
    explain: bool = Field(default=False, description="Tell ranks and scores by leg.")
    highlight: bool = Field(
        default=True, description="Tell where the words of the question stand in each hit."
    )

    def request(self, timeout_s: float | None) -> SearchRequest:
        """Return what the service is asked; raise InvalidRequestError for what is no question."""
        if (self.query is None) == (self.queries is None):
            raise InvalidRequestError("Send the question as `query`, or several as `queries`.")
        queries = self.queries if self.queries is not None else [self.query or ""]
        return SearchRequest(
            queries=tuple(queries),
            k=self.k,
            max_tokens=self.max_tokens,
            passage_tokens=self.passage_tokens,
            mode=self.mode,
            fusion=self.fusion,
            filter=parse_filter(self.filter) if self.filter else EVERY_DOCUMENT,
            min_score=self.min_score,
            diversity=self.diversity,
            rerank=_reranker(self.rerank),
            rerank_timeout_s=self.rerank_timeout_ms / 1000 if self.rerank_timeout_ms else None,
            is_exact=self.exact,
            explains=self.explain,
            highlights=self.highlight,
            timeout_s=timeout_s,
        )


def _reranker(asked: bool | str | None) -> str | None:
    """Return its name, empty for the only one; None: the hits stay as they are."""
    if isinstance(asked, str):
        return asked
    return "" if asked else None


class ManyBody(QueryBody):
    """The same of several indexes."""

    indexes: list[str] = Field(min_length=1, max_length=32, description="Their names.")


async def query(house: Services, name: str, fields: Fields, timeout_s: float | None) -> Reply:
    """Find the passages that answer a question; a route of `hot`."""
    body = check_model(fields.given, QueryBody)
    result = await house.search.search(name, body.request(timeout_s))
    shown = _Shown(house.pages, body.explain)
    return fast_reply(
        {
            "hits": [shown.hit(result, hit) for hit in result.hits],
            "index": name,
            **shown.facts(result),
        }
    )


@router.post(
    "/query",
    responses={503: {"description": "The server is busy, or the request's time is over."}},
    openapi_extra={**describe_body(ManyBody), "parameters": [TIMEOUT]},
)
async def query_many(request: Request) -> Response:
    """Find the passages that answer a question in several indexes, best first by relevance."""
    body = await read_model(request, ManyBody)
    asked = body.request(timeout_of(request.scope["headers"]))
    names = list(dict.fromkeys(body.indexes))
    found = await services(request).search.search_many(names, asked)
    shown = _Shown(services(request).pages, body.explain)
    hits = [{"index": name, **shown.hit(found.results[name], hit)} for name, hit in found.hits]
    facts = {name: shown.facts(result) for name, result in found.results.items()}
    return json_reply({"hits": hits, "indexes": facts})


class _Shown:
    """What the API shows of a result."""

    def __init__(self, pages: DocumentPages, explains: bool) -> None:
        self._pages = pages
        self._explains = explains

    def facts(self, result: SearchResult) -> dict[str, Any]:
        """Return how it was found."""
        told: dict[str, Any] = {
            "model": result.model,
            "mode": result.mode,
            "exact": result.is_exact,
            "best_rejected": _rounded(result.best_rejected),
            "suggestions": result.suggestions,
            "warnings": result.warnings,
            "timings_ms": result.timings_ms,
        }
        if self._explains:
            told["dropped"] = [
                {"id": str(one.chunk_id), "reason": one.reason} for one in result.dropped
            ]
        return told

    def hit(self, result: SearchResult, hit: Hit) -> dict[str, Any]:
        """Return one hit."""
        chunk, scores = hit.chunk, hit.scores
        told: dict[str, Any] = {
            "id": str(chunk.id),
            "text": hit.text,
            "score": _rounded(hit.score),
            "scores": {key: _rounded(value) for key, value in vars(scores).items()},
            **self._place(result.index, hit.passage),
            "lines": _lines(hit),
            "chunks": [
                {"id": str(one.id), "start": one.start, "end": one.end} for one in hit.chunks
            ],
            "tokens": hit.tokens,
            "places": hit.places,
            "also_in": [self._place(result.index, one) for one in hit.also_in],
            "near_duplicates": hit.near_duplicates,
        }
        if hit.highlights:
            sentences = [vars(one) for one in hit.highlights.sentences]
            told["highlights"] = {**vars(hit.highlights), "sentences": sentences}
        if self._explains:
            told["legs"] = {name: standing._asdict() for name, standing in hit.legs.items()}
        return told

    def _place(self, index: Index, chunk: StoredChunk) -> dict[str, Any]:
        return {
            "id": str(chunk.id),
            "document": {
                "id": str(chunk.document_id),
                "path": chunk.path,
                "title": chunk.title,
                "metadata": json.loads(chunk.metadata),
            },
            "page": chunk.page,
            "heading": list(chunk.heading),
            "start": chunk.start,
            "end": chunk.end,
            "lines": vars(chunk.lines) if chunk.lines else None,
            "permalink": self._pages.permalink(index, chunk),
        }


def _lines(hit: Hit) -> dict[str, int] | None:
    first, last = hit.chunks[0].lines, hit.chunks[-1].lines
    return {"start": first.start, "end": last.end} if first and last else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


QUERY_SCHEMAS = {
    "/indexes/{name}/query": describe_post(
        "Find the passages that answer a question",
        "indexes",
        describe_body(QueryBody)["requestBody"],
        given("The hits.", ANSWER),
        ("400 404 409 413 500 503", NATIVE_ERROR),
        [PATH_NAME],
    )
}
"""What the OpenAPI document says of the route of `hot`."""
