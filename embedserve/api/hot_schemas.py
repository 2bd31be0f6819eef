"""What the OpenAPI document says of the routes that the framework does not see. Data only."""

from typing import Any

_TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_NUMBERS = {"type": "array", "items": {"type": "number", "format": "float"}}
MODEL = {"type": "string", "description": "Installed model, such as `all-minilm`."}
_DIMENSIONS = {
    "type": "integer",
    "minimum": 1,
    "description": "Leading dimensions to keep; the rest is cut and the vector normalized again.",
}
_OPTIONS = {
    "type": "object",
    "description": "`num_ctx` is a shorter length limit in tokens; other options do nothing.",
}
KEEP_ALIVE = {
    "anyOf": [{"type": "number"}, {"type": "string"}],
    "description": "How long the model stays in memory after this request: seconds, or a duration "
    "such as `5m`; 0 lets it go, negative keeps it.",
}
_TIMEOUT = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "schema": {"type": "integer", "minimum": 1},
    "description": "Milliseconds after which the answer is 503 and what has not run is dropped.",
}
_WARNINGS = {"type": "array", "items": {"type": "string"}}


def describe_hot(
    summary: str, tag: str, body: dict[str, Any], required: list[str], reply: dict[str, Any]
) -> dict[str, Any]:
    """Return what stands under the path of a hot route; `reply` is the schema of its answer."""
    sent = {"type": "object", "required": required, "properties": body}
    errors = {
        "400": "Something in the request is wrong; the message says what.",
        "404": "There is no such model.",
        "413": "The request, or a text in it, is larger than a setting allows.",
        "503": "The server is busy, or the request's time is over.",
    }
    described = {status: {"description": text} for status, text in errors.items()}
    return {
        "post": {
            "tags": [tag],
            "summary": summary,
            "parameters": [_TIMEOUT],
            "requestBody": {"required": True, "content": {"application/json": {"schema": sent}}},
            "responses": {
                "200": {
                    "description": reply["description"],
                    "content": {"application/json": {"schema": reply}},
                },
                **described,
            },
        }
    }


def _vectors(properties: dict[str, Any]) -> dict[str, Any]:
    described = "The vectors, in the order of the texts."
    return {"type": "object", "description": described, "properties": properties}


HOT_SCHEMAS = {
    "/api/embed": describe_hot(
        "Embed one text or many (Ollama)",
        "ollama",
        {
            "model": MODEL,
            "input": _TEXTS,
            "truncate": {"type": "boolean", "default": True},
            "dimensions": _DIMENSIONS,
            "keep_alive": KEEP_ALIVE,
            "options": _OPTIONS,
        },
        ["model"],
        _vectors(
            {
                "model": {"type": "string"},
                "embeddings": {"type": "array", "items": _NUMBERS},
                "total_duration": {"type": "integer", "description": "Nanoseconds."},
                "load_duration": {"type": "integer", "description": "Nanoseconds."},
                "prompt_eval_count": {"type": "integer", "description": "Tokens embedded."},
                "warnings": _WARNINGS,
            }
        ),
    ),
    "/api/embeddings": describe_hot(
        "Embed one text (Ollama, older)",
        "ollama",
        {
            "model": MODEL,
            "prompt": {"type": "string"},
            "keep_alive": KEEP_ALIVE,
            "options": _OPTIONS,
        },
        ["model"],
        _vectors({"embedding": _NUMBERS}),
    ),
    "/v1/embeddings": describe_hot(
        "Embed one text or many (OpenAI)",
        "openai",
        {
            "model": MODEL,
            "input": _TEXTS,
            "encoding_format": {"type": "string", "enum": ["float", "base64"]},
            "dimensions": _DIMENSIONS,
        },
        ["model", "input"],
        _vectors(
            {
                "object": {"type": "string"},
                "data": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "object": {"type": "string"},
                            "index": {"type": "integer"},
                            "embedding": {"anyOf": [_NUMBERS, {"type": "string"}]},
                        },
                    },
                },
                "model": {"type": "string"},
                "usage": {
                    "type": "object",
                    "properties": {
                        "prompt_tokens": {"type": "integer"},
                        "total_tokens": {"type": "integer"},
                    },
                },
                "warnings": _WARNINGS,
            }
        ),
    ),
}
