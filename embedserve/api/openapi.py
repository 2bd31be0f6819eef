"""The OpenAPI document: what the framework knows of its routes, and what it cannot know."""

from typing import Any

from embedserve import errors
from embedserve.api.chat_schemas import CHAT_SCHEMAS
from embedserve.api.errors import shape_of, status_of
from embedserve.api.hot_schemas import HOT_SCHEMAS
from embedserve.api.rerank_schemas import RERANK_SCHEMAS
from embedserve.api.route_schemas import ROUTE_SCHEMAS
from embedserve.api.schema_parts import (
    NATIVE_ERROR,
    STATUSES,
    given,
    refused,
)
from embedserve.api.scopes import OPEN, scope_of
from embedserve.api.search import QUERY_SCHEMAS

_FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Return the framework's document with the hot routes, and with the answers that are given."""
    told = {path: _methods(path, methods) for path, methods in document["paths"].items()}
    told |= HOT_SCHEMAS | RERANK_SCHEMAS | QUERY_SCHEMAS
    paths = {path: _guarded(path, methods) for path, methods in told.items()}
    components = dict(document.get("components", {}))
    schemas = components.get("schemas", {})
    components["schemas"] = {k: v for k, v in schemas.items() if k not in _FRAMEWORKS_OWN}
    return {**document, "paths": paths, "components": components}


def _methods(path: str, methods: dict[str, Any]) -> dict[str, Any]:
    known = CHAT_SCHEMAS.get(path) or ROUTE_SCHEMAS.get(path, {})
    return {method: _operation(told, known.get(method, {})) for method, told in methods.items()}


def _operation(told: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    if known:
        return {**told, **known}
    responses = dict(told["responses"])
    # What the framework checks is refused with 400 and our words, see errors.py.
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
        responses["400"] = given(STATUSES["400"], NATIVE_ERROR)
    return {**told, "responses": responses}


def _guarded(path: str, methods: dict[str, Any]) -> dict[str, Any]:
    """Add what is answered before a route is reached: keys, foreign pages, too many requests."""
    shape, busy = shape_of(path), errors.OverloadedError(errors.BUSY)
    guarded = {}
    for method, told in methods.items():
        is_open = scope_of(method.upper(), path) == OPEN
        statuses = "" if is_open else f"{shape.status(401, None)}"
        if method != "get":
            statuses += f" {shape.status(status_of(busy), busy)}"
        responses = {**refused(statuses, shape.schema), **told["responses"]}
        guarded[method] = {**told, "responses": dict(sorted(responses.items()))}
    return guarded
