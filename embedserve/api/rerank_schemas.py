"""What the OpenAPI document says of the reranking routes. Data only."""

from typing import Any

from embedserve.api.hot_schemas import KEEP_ALIVE, describe_hot

_MODEL = {
    "type": "string",
    "description": "Installed reranker, such as `bge-reranker-base`; absent: the only one.",
}
_TEXT = {"type": "string"}
_RAW = {
    "type": "boolean",
    "default": False,
    "description": "Scores are the model's logits instead of 0 to 1.",
}
_TRUNCATE = {
    "type": "boolean",
    "default": True,
    "description": "false: a document that does not fit beside the query is a 400. The query is "
    "never cut.",
}
_DOCUMENT = {
    "type": "object",
    "description": "Text in `text`, or in the fields that `rank_fields` names.",
}
_BODY = {
    "model": _MODEL,
    "query": _TEXT,
    "documents": {"type": "array", "minItems": 1, "items": {"anyOf": [_TEXT, _DOCUMENT]}},
    "top_n": {"type": "integer", "minimum": 1, "description": "How many results; absent: all."},
    "return_documents": {"type": "boolean", "default": False},
    "rank_fields": {
        "type": "array",
        "items": _TEXT,
        "default": ["text"],
        "description": "Fields of documents that are objects; their texts are joined by line ends.",
    },
    "max_tokens_per_doc": {
        "type": "integer",
        "minimum": 1,
        "description": "Documents are cut to so many tokens, besides to what fits.",
    },
    "raw_scores": _RAW,
    "truncate": _TRUNCATE,
}
_RESULTS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "index": {"type": "integer", "description": "Position in `documents`."},
            "relevance_score": {"type": "number"},
            "document": _DOCUMENT,
        },
    },
}
_COUNTS = {"type": "object", "additionalProperties": True}
_COHERE = {"id": _TEXT, "results": _RESULTS, "meta": _COUNTS}
_UNION = _COHERE | {"object": _TEXT, "model": _TEXT, "usage": _COUNTS}
_SORTED = "The documents, the most relevant first."


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "description": _SORTED, "properties": properties}


_REQUIRED = ["query", "documents"]

RERANK_SCHEMAS = {
    "/api/rerank": describe_hot(
        "Rank documents by relevance to a query",
        "rerank",
        _BODY | {"keep_alive": KEEP_ALIVE},
        _REQUIRED,
        _object(
            {
                "model": _TEXT,
                "results": _RESULTS,
                "total_duration": {"type": "integer", "description": "Nanoseconds."},
                "load_duration": {"type": "integer", "description": "Nanoseconds."},
                "prompt_eval_count": {"type": "integer", "description": "Tokens of all pairs."},
            }
        ),
    ),
    "/v1/rerank": describe_hot(
        "Rank documents (Cohere v1, Jina)", "rerank", _BODY, _REQUIRED, _object(_UNION)
    ),
    "/v2/rerank": describe_hot(
        "Rank documents (Cohere v2)", "rerank", _BODY, _REQUIRED, _object(_COHERE)
    ),
    "/rerank": describe_hot(
        "Rank texts (TEI), or documents as under /v1",
        "rerank",
        _BODY
        | {
            "texts": {"type": "array", "minItems": 1, "items": _TEXT},
            "return_text": {"type": "boolean", "default": False},
        },
        ["query"],
        {
            "description": _SORTED,
            "anyOf": [
                {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "index": {"type": "integer"},
                            "score": {"type": "number"},
                            "text": _TEXT,
                        },
                    },
                },
                _object(_UNION),
            ],
        },
    ),
}
