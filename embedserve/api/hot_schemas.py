"""What the OpenAPI document says of the routes that the framework does not see. Data only."""

from collections.abc import Sequence

from embedserve.api.schema_parts import (
    FLAG,
    KEEP_ALIVE,
    MODEL,
    NATIVE_ERROR,
    NUMBERS,
    OPENAI_ERROR,
    STRINGS,
    TEI_ERROR,
    TEXT,
    TEXTS,
    TIMEOUT,
    WHOLE,
    Schema,
    given,
    optional,
    refused,
    sent,
    shape,
)

_DIMENSIONS = {
    "type": "integer",
    "minimum": -(2**63),
    "maximum": 2**63,
    "description": "Leading dimensions to keep; the rest is cut and the vector normalized again.",
}
_OPTIONS = {
    "type": "object",
    "properties": {"num_ctx": {"type": ["number", "null"]}},
    "description": "`num_ctx` is a shorter length limit in tokens; other options do nothing.",
}
_EXTRAS = {
    "input_type": {
        "enum": ["query", "document"],
        "description": "Puts the model's prompt for that in front of each text.",
    },
    "truncate_side": {
        "enum": ["right", "left"],
        "description": "Which end of too long a text is cut off.",
    },
    "encoding_format": {
        "enum": ["float", "base64"],
        "description": "base64: little-endian float32 in one string.",
    },
    "on_error": {
        "enum": ["fail", "item"],
        "description": "`item`: a text that fails gives null and an error of its own.",
    },
}
_IDS = {"type": "array", "items": WHOLE}
_LISTS = {"type": "array", "items": _IDS}
_VECTOR = {"anyOf": [NUMBERS, TEXT, {"type": "null"}]}
_HEADERS = {
    "X-Truncated-Inputs": {
        "description": "Positions of the texts that were cut, the first hundred of them.",
        "schema": TEXT,
    },
    "X-Truncated-Count": {"description": "How many there are.", "schema": WHOLE},
}
_OLLAMA = "400 404 413 500 503"
_OPENAI = "400 404 413 429 500 503"
_TEI = "404 413 422 424 429 503"


def describe_hot(
    summary: str, tag: str, body: Schema, answer: Schema, errors: tuple[str, Schema]
) -> Schema:
    """Return what stands under the path of a hot route; `errors` are statuses and their shape.

    Its answer has the headers about texts that were cut.
    """
    return describe_post(summary, tag, body, answer | {"headers": _HEADERS}, errors)


def describe_post(
    summary: str,
    tag: str,
    body: Schema,
    answer: Schema,
    errors: tuple[str, Schema],
    in_path: Sequence[Schema] = (),
) -> Schema:
    """Return the same without these headers; `in_path` are the parameters of its path."""
    return {
        "post": {
            "tags": [tag],
            "summary": summary,
            "parameters": [*in_path, TIMEOUT],
            "requestBody": body,
            "responses": {"200": answer, **refused(*errors)},
        }
    }


def _vectors(reply: Schema) -> Schema:
    return given("The vectors, in the order of the texts.", reply)


HOT_SCHEMAS = {
    "/api/embed": describe_hot(
        "Embed one text or many (Ollama)",
        "ollama",
        sent(
            {
                "model": MODEL,
                "input": TEXTS,
                "truncate": FLAG,
                "dimensions": _DIMENSIONS,
                "keep_alive": KEEP_ALIVE,
                "options": _OPTIONS,
                **_EXTRAS,
            },
            ["model"],
        ),
        _vectors(
            shape(
                {
                    "model": TEXT,
                    "embeddings": {"type": "array", "items": _VECTOR},
                    "total_duration": WHOLE | {"description": "Nanoseconds."},
                    "load_duration": WHOLE | {"description": "Nanoseconds."},
                    "prompt_eval_count": WHOLE | {"description": "Tokens embedded."},
                    "warnings": STRINGS,
                    "errors": {"type": "array", "items": shape({"index": WHOLE, "error": TEXT})},
                },
                ["model", "embeddings"],
            )
        ),
        (_OLLAMA, NATIVE_ERROR),
    ),
    "/api/embeddings": describe_hot(
        "Embed one text (Ollama, older)",
        "ollama",
        sent(
            {
                "model": MODEL,
                "prompt": TEXT,
                "input": TEXT,
                "keep_alive": KEEP_ALIVE,
                "options": _OPTIONS,
            },
            ["model"],
        ),
        _vectors(shape({"embedding": NUMBERS})),
        (_OLLAMA, NATIVE_ERROR),
    ),
    "/v1/embeddings": describe_hot(
        "Embed one text or many (OpenAI)",
        "openai",
        sent(
            {
                "model": MODEL,
                "input": {"anyOf": [TEXT, {**STRINGS, "minItems": 1}]},
                "dimensions": WHOLE | {"minimum": 1, "description": _DIMENSIONS["description"]},
                **_EXTRAS,
            },
            ["model", "input"],
        ),
        _vectors(
            shape(
                {
                    "object": TEXT,
                    "data": {
                        "type": "array",
                        "items": shape(
                            {"object": TEXT, "index": WHOLE, "embedding": _VECTOR, "error": TEXT},
                            ["object", "index", "embedding"],
                        ),
                    },
                    "model": TEXT,
                    "usage": shape({"prompt_tokens": WHOLE, "total_tokens": WHOLE}),
                    "warnings": STRINGS,
                },
                ["object", "data", "model", "usage"],
            )
        ),
        (_OPENAI, OPENAI_ERROR),
    ),
    "/embed": describe_hot(
        "Embed one text or many (Text Embeddings Inference)",
        "tei",
        sent(
            {
                "inputs": {"anyOf": [TEXT, {**STRINGS, "minItems": 1}]},
                "truncate": FLAG,
                "truncation_direction": {"enum": ["Right", "Left", "right", "left"]},
                "prompt_name": {"enum": ["query", "document", "passage"]},
                "normalize": {"enum": [True]},
                "dimensions": _DIMENSIONS,
                "model": optional(MODEL) | {"description": "Absent: the default model."},
            },
            ["inputs"],
        ),
        _vectors({"type": "array", "items": NUMBERS}),
        (_TEI, TEI_ERROR),
    ),
    "/api/tokenize": describe_post(
        "Return the token ids of texts",
        "tokens",
        sent(
            {"model": MODEL, "input": TEXTS, "add_special_tokens": FLAG, "offsets": FLAG},
            ["model"],
        ),
        given(
            "The ids.",
            shape(
                {
                    "model": TEXT,
                    "tokens": _LISTS,
                    "count": WHOLE,
                    "offsets": {"type": "array", "items": _LISTS},
                },
                ["model", "tokens", "count"],
            ),
        ),
        (_OLLAMA, NATIVE_ERROR),
    ),
    "/api/detokenize": describe_post(
        "Return the texts of token ids",
        "tokens",
        sent(
            {
                "model": MODEL,
                "tokens": {"anyOf": [_IDS, _LISTS]},
                "skip_special_tokens": FLAG,
            },
            ["model", "tokens"],
        ),
        given("The texts.", shape({"model": TEXT, "texts": STRINGS})),
        (_OLLAMA, NATIVE_ERROR),
    ),
}
