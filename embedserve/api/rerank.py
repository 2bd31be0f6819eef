"""Reranking in four dialects: our own, Cohere's (v1, v2), Jina's and TEI's. Shapes: docs/api.md.

One reading of the body for all of them; the path decides the shape of the answer, and at
`/rerank`, which two dialects claim, the name of the list: `documents` or TEI's `texts`.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embedserve.api.body import Fields
from embedserve.api.hot import HotRoute
from embedserve.api.keep_alive import seconds_of
from embedserve.api.replies import Reply, Services, fast_reply
from embedserve.errors import InvalidRequestError
from embedserve.services.reranking import Ranking, RerankRequest

MEDIA_TYPE = b"application/json"

Row = dict[str, Any]


@dataclass(frozen=True)
class _Asked:
    """A body, read."""

    request: RerankRequest
    documents: Sequence[str | Mapping[str, Any]]
    """As they came."""
    top_n: int
    is_raw: bool
    returns_documents: bool


async def own(services: Services, fields: Fields, timeout_s: float | None) -> Reply:
    """Rank in our own dialect, which follows Ollama's habits."""
    asked = _read(fields, timeout_s)
    ranking = await services.reranking.rank(asked.request)
    reply = {
        "model": fields.text("model") or ranking.model,
        "results": _results(asked, ranking),
        "total_duration": ranking.total_ns,
        "load_duration": ranking.load_ns,
        "prompt_eval_count": ranking.tokens,
    }
    return fast_reply(reply, truncated=ranking.truncated)


async def v1(services: Services, fields: Fields, timeout_s: float | None) -> Reply:
    """Rank as Cohere's v1 and Jina do: the answer has the fields of both."""
    asked = _read(fields, timeout_s)
    ranking = await services.reranking.rank(asked.request)
    reply = {
        **_cohere(asked, ranking, version="1"),
        "object": "list",
        "model": fields.text("model") or ranking.model,
        "usage": {"prompt_tokens": ranking.tokens, "total_tokens": ranking.tokens},
    }
    return fast_reply(reply, truncated=ranking.truncated, media_type=MEDIA_TYPE)


async def v2(services: Services, fields: Fields, timeout_s: float | None) -> Reply:
    """Rank as Cohere's v2 does."""
    asked = _read(fields, timeout_s)
    ranking = await services.reranking.rank(asked.request)
    reply = _cohere(asked, ranking, version="2")
    return fast_reply(reply, truncated=ranking.truncated, media_type=MEDIA_TYPE)


async def bare(services: Services, fields: Fields, timeout_s: float | None) -> Reply:
    """Rank as TEI does when the body has `texts`, else as `v1`."""
    if fields.raw("texts") is None:
        return await v1(services, fields, timeout_s)
    if fields.raw("documents") is not None:
        raise InvalidRequestError("Give either `texts` or `documents`, not both.")
    asked = _read(fields, timeout_s, listed="texts", returning="return_text")
    ranking = await services.reranking.rank(asked.request)
    scores, rows = ranking.scores(is_raw=asked.is_raw), []
    for at in ranking.order[: asked.top_n]:
        row: Row = {"index": at, "score": scores[at]}
        if asked.returns_documents:
            row["text"] = asked.request.documents[at]
        rows.append(row)
    return fast_reply(rows, truncated=ranking.truncated, media_type=MEDIA_TYPE)


ROUTES: Mapping[str, HotRoute] = {
    "/api/rerank": own,
    "/v1/rerank": v1,
    "/v2/rerank": v2,
    "/rerank": bare,
}


def _read(
    fields: Fields,
    timeout_s: float | None,
    *,
    listed: str = "documents",
    returning: str = "return_documents",
) -> _Asked:
    """Read a body; raise InvalidRequestError that says which field is wrong, and how."""
    query = fields.text("query")
    if not query.strip():
        raise InvalidRequestError("`query` is missing or empty. Give the text to compare with.")
    documents = fields.raw(listed)
    if not isinstance(documents, list) or not documents:
        raise InvalidRequestError(f"`{listed}` must be a list of at least one text.")
    if (fields.text("truncation_direction") or "right").lower() != "right":
        raise InvalidRequestError("`truncation_direction` can only be `Right`.")
    rank_fields = _rank_fields(fields)
    request = RerankRequest(
        query=query,
        documents=[_text(listed, at, one, rank_fields) for at, one in enumerate(documents)],
        model=fields.text("model"),
        truncate=fields.flag("truncate", default=listed != "texts"),
        max_document_tokens=_positive(fields, "max_tokens_per_doc"),
        keep_alive_s=seconds_of(fields.raw("keep_alive")),
        timeout_s=timeout_s,
    )
    return _Asked(
        request,
        documents,
        top_n=_positive(fields, "top_n") or len(documents),
        is_raw=fields.flag("raw_scores", default=False),
        returns_documents=fields.flag(returning, default=False),
    )


def _positive(fields: Fields, name: str) -> int | None:
    value = fields.whole(name)
    if value is not None and value < 1:
        raise InvalidRequestError(f"`{name}` must be 1 or more, not {value}.")
    return value


def _rank_fields(fields: Fields) -> Sequence[str]:
    """Return which fields of a document that is an object are ranked, in that order."""
    names = fields.raw("rank_fields")
    if names is None:
        return ("text",)
    if not isinstance(names, list) or not names or not all(isinstance(one, str) for one in names):
        raise InvalidRequestError("`rank_fields` must be a list of field names.")
    return names


def _text(listed: str, position: int, document: object, rank_fields: Sequence[str]) -> str:
    if isinstance(document, str):
        return document
    if not isinstance(document, dict):
        raise InvalidRequestError(
            f"`{listed}[{position}]` must be a string or an object with a field `text`."
        )
    parts = [document[name] for name in rank_fields if name in document]
    if not parts or not all(isinstance(part, str) for part in parts):
        named = " or ".join(f"`{name}`" for name in rank_fields)
        raise InvalidRequestError(
            f"`{listed}[{position}]` needs text in {named}; other fields are named in "
            "`rank_fields`."
        )
    return "\n".join(parts)


def _results(asked: _Asked, ranking: Ranking) -> list[Row]:
    scores, rows = ranking.scores(is_raw=asked.is_raw), []
    for at in ranking.order[: asked.top_n]:
        row: Row = {"index": at, "relevance_score": scores[at]}
        if asked.returns_documents:
            row["document"] = _returned(asked.documents[at])
        rows.append(row)
    return rows


def _returned(document: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return {"text": document} if isinstance(document, str) else document


def _cohere(asked: _Asked, ranking: Ranking, *, version: str) -> Row:
    return {
        "id": str(uuid.uuid4()),
        "results": _results(asked, ranking),
        "meta": {
            "api_version": {"version": version},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": ranking.tokens},
        },
    }
