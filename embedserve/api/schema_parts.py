"""What the OpenAPI document says in many places: fields, errors, bodies. Data and its assembly."""

from collections.abc import Mapping, Sequence
from typing import Any

Schema = dict[str, Any]
Answers = dict[int | str, Schema]
"""By status, as the framework takes them."""

_PART = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"
_NAME = (
    "^(([A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}/)?[A-Za-z0-9_][A-Za-z0-9_-]{0,79}/)?"
    f"{_PART}(:{_PART})?$"
)
_NUMBER = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)"
_DURATION = f"^[+-]?({_NUMBER}|({_NUMBER}(ns|us|ms|s|m|h))+)$"

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
STRINGS: Schema = {"type": "array", "items": TEXT}
NUMBERS: Schema = {"type": "array", "items": {"type": "number", "format": "float"}}
MODEL: Schema = {"type": "string", "pattern": _NAME, "description": "Such as `all-minilm`."}
TEXTS: Schema = {"anyOf": [TEXT, STRINGS]}
TIME: Schema = {"type": "string", "format": "date-time"}
KEEP_ALIVE: Schema = {
    "anyOf": [
        {"type": "number"},
        {"type": "string", "pattern": _DURATION, "maxLength": 100},
        {"type": "null"},
    ],
    "description": "How long the model stays in memory after this request: seconds, or a duration "
    "such as `5m`; 0 lets it go, negative keeps it.",
}
PATH_NAME: Schema = {"name": "name", "in": "path", "required": True, "schema": TEXT}
TIMEOUT: Schema = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999_999},
    "description": "Milliseconds after which the answer is 503 and what has not run is dropped.",
}

JSON = "application/json"
PLAIN = "text/plain"
LINES = "application/x-ndjson"
ZIP = "application/zip"
FILE = "application/octet-stream"

NATIVE_ERROR: Schema = {"type": "object", "required": ["error"], "properties": {"error": TEXT}}
OPENAI_ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": TEXT,
                "type": TEXT,
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
TEI_ERROR: Schema = {
    "type": "object",
    "required": ["error", "error_type"],
    "properties": {
        "error": TEXT,
        "error_type": {"enum": ["Validation", "Backend", "Overloaded", "Unhealthy"]},
    },
}
# Cohere's is the message, Jina's the detail; both at /v1.
COHERE_ERROR: Schema = {
    "type": "object",
    "required": ["message"],
    "properties": {"message": TEXT, "detail": TEXT},
}
DETAIL_ERROR: Schema = {
    "type": "object",
    "required": ["detail"],
    "properties": {"detail": TEXT},
}
DIFY_ERROR: Schema = {
    "type": "object",
    "required": ["error_code", "error_msg"],
    "properties": {"error_code": WHOLE, "error_msg": TEXT},
}

STATUSES = {
    "400": "Something in the request is wrong; the message says what.",
    "401": "The server has API keys, and the request has none of them.",
    "403": "A web page of another site asked, or the path is outside the allowed roots.",
    "404": "What the request names does not exist.",
    "409": "It contradicts what is stored, or what is under way.",
    "413": "The request, or a text in it, is larger than a setting allows.",
    "422": "Something in the request is wrong; the message says what.",
    "424": "The model cannot be used; the message says what repairs it.",
    "429": "Too much waits for the engine; `Retry-After` says for how many seconds.",
    "500": "The model cannot be used; the message says what repairs it.",
    "503": "The server is busy, or the request's time is over.",
}


def optional(schema: Schema) -> Schema:
    """Return the schema of a field that may be null, which is the same as absent."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], {"type": "null"}]}
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    if isinstance(schema["type"], list):  # may be null already
        return schema
    return {**schema, "type": [schema["type"], "null"]}


def shape(properties: Mapping[str, Schema], required: Sequence[str] | None = None) -> Schema:
    """Return the schema of an object that has all of these, or those that are required."""
    names = list(properties) if required is None else list(required)
    return {"type": "object", "required": names, "properties": dict(properties)}


def sent(fields: Mapping[str, Schema], required: Sequence[str]) -> Schema:
    """Return a request body: what is not required may be null."""
    known = {k: v if k in required else optional(v) for k, v in fields.items()}
    return {"required": True, "content": {JSON: {"schema": shape(known, required)}}}


def given(description: str, schema: Schema | None, media_type: str = JSON) -> Schema:
    """Return an answer; without a schema it has no body."""
    content = {"content": {media_type: {"schema": schema}}} if schema is not None else {}
    return {"description": description, **content}


def refused(statuses: str, error: Schema = NATIVE_ERROR) -> Schema:
    """Return the answers that are errors, `400 404`; every route can refuse a foreign page."""
    every = sorted({*statuses.split(), "403"})
    return {status: given(STATUSES[status], error) for status in every}


def answers(ok: Schema | None, statuses: str, error: Schema = NATIVE_ERROR) -> Answers:
    """Return what a route of the framework answers: 200 and errors, or errors alone."""
    known: Answers = {200: ok} if ok else {}
    for status, told in refused(statuses, error).items():
        known[status] = told
    return known
