"""The dialect of Dify's external knowledge API: `POST /retrieval`. An index is a knowledge base.

Dify shows its users no error of ours: it takes any as "nothing found". So errors are logged here.
"""

import json
import logging
import re
from collections.abc import Callable
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from embedserve.api.body import describe_body, read_model
from embedserve.api.hot import timeout_of
from embedserve.api.replies import json_reply, own_address, services
from embedserve.api.schema_parts import DIFY_ERROR, OBJECT, TEXT, answers, given, shape
from embedserve.errors import EmbedserveError, InvalidRequestError
from embedserve.services.filters import parse_filter
from embedserve.services.search_request import MAX_K, Hit, SearchRequest
from embedserve.types import EVERY_DOCUMENT, Filter, Index

logger = logging.getLogger(__name__)

router = APIRouter(tags=["dify"])

Value = str | int | float | bool | None


class RetrievalSetting(BaseModel):
    """How much to return."""

    top_k: int = Field(default=5, ge=1, le=MAX_K, description="Passages to return.")
    score_threshold: float | None = Field(
        default=None, ge=0, le=1, description="0, which Dify sends for none: the index's own."
    )


class Condition(BaseModel):
    """One condition on the metadata of documents."""

    name: list[str] | str = Field(description="Metadata; of several, one meets the condition.")
    comparison_operator: str
    value: Value | list[Value] = None


class MetadataCondition(BaseModel):
    """Which documents to look in."""

    logical_operator: Literal["and", "or"] = "and"
    conditions: list[Condition] | None = None


class RetrievalBody(BaseModel):
    """What Dify asks."""

    knowledge_id: str = Field(description="The name of an index.")
    query: str
    retrieval_setting: RetrievalSetting = RetrievalSetting()
    metadata_condition: MetadataCondition | None = None

    def request(self, timeout_s: float | None) -> SearchRequest:
        """Return what the service is asked."""
        setting = self.retrieval_setting
        return SearchRequest(
            (self.query,),
            k=setting.top_k,
            min_score=setting.score_threshold or None,
            filter=filter_of(self.metadata_condition),
            timeout_s=timeout_s,
        )


_RECORD = shape({"content": TEXT, "score": {"type": "number"}, "title": TEXT, "metadata": OBJECT})
_ANSWER = given("The best passages.", shape({"records": {"type": "array", "items": _RECORD}}))


@router.post(
    "/retrieval",
    openapi_extra=describe_body(RetrievalBody),
    responses=answers(_ANSWER, "400 404 409 413 503", DIFY_ERROR),
)
async def retrieval(request: Request) -> Response:
    """Find the passages that answer a question, for Dify (external knowledge)."""
    try:
        body = await read_model(request, RetrievalBody)
        asked = body.request(timeout_of(request.scope["headers"]))
        result = await services(request).search.search(body.knowledge_id, asked)
    except EmbedserveError as error:
        logger.warning("Dify gets nothing: %s", error)
        services(request).metrics.count_refusal(error)
        raise
    return json_reply({"records": [_record(request, result.index, hit) for hit in result.hits]})


def _record(request: Request, index: Index, hit: Hit) -> dict[str, Any]:
    chunk = hit.chunk
    link = services(request).pages.permalink(index, hit.passage)
    return {
        "content": hit.text,
        "score": round(hit.score, 6),
        "title": chunk.title or chunk.path,
        "metadata": {
            **json.loads(chunk.metadata),
            "document_id": str(chunk.document_id),
            "path": chunk.path,
            "page": chunk.page,
            "url": own_address(request) + link,
        },
    }


# -- conditions -------------------------------------------------------------------------------


def filter_of(condition: MetadataCondition | None) -> Filter:
    """Translate Dify's conditions; raise InvalidRequestError for one that cannot be met."""
    if condition is None or not condition.conditions:
        return EVERY_DOCUMENT
    word = condition.logical_operator
    return parse_filter({word: [_any_of(one) for one in condition.conditions]})


def _any_of(condition: Condition) -> dict[str, Any]:
    named = condition.name
    names = [named] if isinstance(named, str) else named
    if not names:
        raise InvalidRequestError("A metadata condition has no name.", field="name")
    return {"or": [_one(name, condition) for name in names]}


def _one(name: str, condition: Condition) -> dict[str, Any]:
    word = condition.comparison_operator
    test = _TESTS.get(word)
    if test is None:
        known = ", ".join(f"`{one}`" for one in _TESTS)
        raise InvalidRequestError(
            f"`comparison_operator` `{word[:40]}` is not known; known are {known}.",
            field="comparison_operator",
        )
    return test(name, condition.value)


Test = Callable[[str, Any], dict[str, Any]]


def _field(name: str, operators: dict[str, Any]) -> dict[str, Any]:
    """Return a filter on metadata, or on what Dify calls the name of a document."""
    if name == "document_name":
        return {"title": operators}
    return {"metadata": {name: operators}}


def _glob(before: str, after: str) -> Test:
    def test(name: str, value: object) -> dict[str, Any]:
        return _field(name, {"glob": before + _literal(value) + after})

    return test


def _literal(value: object) -> str:
    """Return a text as a glob that matches it alone."""
    return re.sub(r"([*?[])", r"[\1]", str(value))


def _contains(name: str, value: object) -> dict[str, Any]:
    return _field(name, {"contains": value})


def _is(name: str, value: object) -> dict[str, Any]:
    return _field(name, {"in": _spellings(name, value)})


def _among(name: str, value: object) -> dict[str, Any]:
    values = value if isinstance(value, list) else str(value).split(",")
    stripped = [one.strip() if isinstance(one, str) else one for one in values]
    return _field(name, {"in": [two for one in stripped for two in _spellings(name, one)]})


def _spellings(name: str, value: object) -> list[object]:
    """Return a value and the number that it writes: Dify's fields hand everything on as text."""
    number = _number(value)
    if name == "document_name" or number is None or not isinstance(value, str):
        return [value]
    return [value, number]


def _number(value: object) -> int | float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        return int(value)
    except (ValueError, OverflowError):
        pass
    try:
        return float(value)
    except ValueError:
        return None


def _equals(name: str, value: object) -> dict[str, Any]:
    return _field(name, {"eq": _number_of(value)})


def _compared(operator: str) -> Test:
    return lambda name, value: _field(name, {operator: _number_of(value)})


def _number_of(value: object) -> int | float:
    number = _number(value)
    if number is None:
        raise InvalidRequestError(f"`value` `{value}` is no number.", field="value")
    return number


def _date(operator: str) -> Test:
    """Compare as it is written: seconds as a number, or a date as text."""

    def test(name: str, value: object) -> dict[str, Any]:
        number = _number(value)
        return _field(name, {operator: value if number is None else number})

    return test


def _empty(name: str, _: object) -> dict[str, Any]:
    if name == "document_name":
        return _field(name, {"eq": ""})
    return {"or": [_field(name, {"exists": False}), _field(name, {"in": ["", None]})]}


def _not(test: Test) -> Test:
    return lambda name, value: {"not": test(name, value)}


_TESTS: dict[str, Test] = {
    "contains": _contains,
    "not contains": _not(_contains),
    "start with": _glob("", "*"),
    "end with": _glob("*", ""),
    "is": _is,
    "is not": _not(_is),
    "in": _among,
    "not in": _not(_among),
    "empty": _empty,
    "not empty": _not(_empty),
    "=": _equals,
    "≠": _not(_equals),
    ">": _compared("gt"),
    "<": _compared("lt"),
    "≥": _compared("gte"),
    "≤": _compared("lte"),
    "before": _date("lt"),
    "after": _date("gt"),
}
