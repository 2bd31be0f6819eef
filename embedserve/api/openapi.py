"""The OpenAPI document: what the framework knows of its routes, and what it cannot know."""

from typing import Any

from embedserve.api.hot_schemas import HOT_SCHEMAS
from embedserve.api.rerank_schemas import RERANK_SCHEMAS
from embedserve.api.route_schemas import ROUTE_SCHEMAS
from embedserve.api.schema_parts import (
    COHERE_ERROR,
    NATIVE_ERROR,
    OPENAI_ERROR,
    STATUSES,
    TEI_ERROR,
    Schema,
    given,
    refused,
)
from embedserve.api.scopes import OPEN, scope_of

# Of paths that are told apart from OpenAI's under `/v1/`, and from ours.
_ERRORS = {
    **dict.fromkeys(("/embed", "/info", "/rerank"), TEI_ERROR),
    **dict.fromkeys(("/v1/rerank", "/v2/rerank"), COHERE_ERROR),
}
_FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Return the framework's document with the hot routes, and with the answers that are given."""
    told = {path: _methods(path, methods) for path, methods in document["paths"].items()}
    told |= HOT_SCHEMAS | RERANK_SCHEMAS
    paths = {path: _guarded(path, methods) for path, methods in told.items()}
    components = dict(document.get("components", {}))
    schemas = components.get("schemas", {})
    components["schemas"] = {k: v for k, v in schemas.items() if k not in _FRAMEWORKS_OWN}
    return {**document, "paths": paths, "components": components}


def _methods(path: str, methods: dict[str, Any]) -> dict[str, Any]:
    known = ROUTE_SCHEMAS.get(path, {})
    return {method: _operation(told, known.get(method, {})) for method, told in methods.items()}


def _operation(told: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    if known:
        return {**told, **known}
    responses = dict(told["responses"])
    # What the framework checks is refused with 400 and our words, see errors.py.
    if responses.pop("422", None):
        responses["400"] = given(STATUSES["400"], NATIVE_ERROR)
    return {**told, "responses": responses}


def _guarded(path: str, methods: dict[str, Any]) -> dict[str, Any]:
    """Add what is answered before a route is reached: keys, foreign pages, too many requests."""
    error = _error_of(path)
    guarded = {}
    for method, told in methods.items():
        statuses = "" if scope_of(method.upper(), path) == OPEN else "401"
        if method != "get":
            statuses += " 503" if error is NATIVE_ERROR else " 429"
        responses = {**refused(statuses, error), **told["responses"]}
        guarded[method] = {**told, "responses": dict(sorted(responses.items()))}
    return guarded


def _error_of(path: str) -> Schema:
    fallback = OPENAI_ERROR if path.startswith("/v1/") else NATIVE_ERROR
    return _ERRORS.get(path, fallback)
