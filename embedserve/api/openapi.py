"""The OpenAPI document: what the framework knows of its routes, and what it cannot know."""

from typing import Any

from embedserve.api.hot_schemas import HOT_SCHEMAS
from embedserve.api.rerank_schemas import RERANK_SCHEMAS
from embedserve.api.route_schemas import ROUTE_SCHEMAS
from embedserve.api.schema_parts import NATIVE_ERROR, STATUSES, given

_FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Return the framework's document with the hot routes, and with the answers that are given."""
    paths = {path: _methods(path, methods) for path, methods in document["paths"].items()}
    components = dict(document.get("components", {}))
    schemas = components.get("schemas", {})
    components["schemas"] = {k: v for k, v in schemas.items() if k not in _FRAMEWORKS_OWN}
    paths |= HOT_SCHEMAS | RERANK_SCHEMAS
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
