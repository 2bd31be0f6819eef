"""What the OpenAPI document says of chats with indexes. Data only; meanings are in docs/api.md."""

from embedserve.api.body import describe_body
from embedserve.api.chat_fields import RagBody
from embedserve.api.schema_parts import (
    FLAG,
    JSON,
    KEEP_ALIVE,
    LINES,
    OBJECT,
    OPENAI_ERROR,
    STATUSES,
    TEXT,
    WHOLE,
    Schema,
    given,
    optional,
    refused,
    sent,
    shape,
)

_RAG: Schema = describe_body(RagBody)["requestBody"]["content"][JSON]["schema"]
_MODEL: Schema = {"type": "string", "description": "`rag/INDEX` or `rag/INDEX@MODEL`."}
_ANY_MODEL: Schema = {"type": "string", "description": "Such as `all-minilm` or `rag/INDEX`."}
_MESSAGES: Schema = {"type": "array", "items": OBJECT}
_CHAT: dict[str, Schema] = {"messages": _MESSAGES, "stream": FLAG, "rag": _RAG}
_EVENTS = "text/event-stream"
_UPSTREAM = {
    "502": "The upstream cannot be reached, or broke off.",
    "504": "The upstream was silent for too long.",
}
_LISTED = shape({"id": TEXT, "object": TEXT, "created": WHOLE, "owned_by": TEXT})
_ANSWER = shape(
    {"choices": {"type": "array", "items": OBJECT}, "model": TEXT, "sources": _MESSAGES},
    ["choices"],
)
_SAID = shape(
    {"model": TEXT, "created_at": TEXT, "message": OBJECT, "done": FLAG, "done_reason": TEXT},
    ["model", "message", "done"],
)


def _answered(answer: Schema, stream: str, error: Schema | None = None) -> Schema:
    known = refused("400 404 409 413 500 503", error) if error else refused("400 404 409 413 500")
    gateway = {status: given(text, error or OBJECT) for status, text in _UPSTREAM.items()}
    content = {JSON: {"schema": answer}, stream: {"schema": TEXT}}
    whole = {"description": "The answer, whole or streamed.", "content": content}
    return {"200": whole, **known, "503": given(STATUSES["503"], error or OBJECT), **gateway}


_COMPLETIONS: dict[str, Schema] = {
    "post": {
        "requestBody": sent({"model": _MODEL, **_CHAT}, ["model", "messages"]),
        "responses": _answered(_ANSWER, _EVENTS, OPENAI_ERROR),
    }
}

CHAT_SCHEMAS: dict[str, dict[str, Schema]] = {
    "/v1/chat/completions": _COMPLETIONS,
    "/openwebui/v1/chat/completions": _COMPLETIONS,
    "/openwebui/v1/models": {
        "get": {
            "responses": {
                "200": given(
                    "Models that answer from an index.",
                    shape({"object": TEXT, "data": {"type": "array", "items": _LISTED}}),
                ),
                **refused("", OPENAI_ERROR),
            }
        }
    },
    "/api/chat": {
        "post": {
            "requestBody": sent(
                {
                    "model": _ANY_MODEL,
                    **_CHAT,
                    "messages": optional(_MESSAGES),
                    "keep_alive": KEEP_ALIVE,
                },
                ["model"],
            ),
            "responses": _answered(_SAID, LINES),
        }
    },
}
"""By path, in front of those of `route_schemas.py`."""
