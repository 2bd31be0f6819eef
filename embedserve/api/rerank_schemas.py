"""What the OpenAPI document says of the reranking routes. Data only."""

from embedserve.api.hot_schemas import describe_hot
from embedserve.api.schema_parts import (
    COHERE_ERROR,
    FLAG,
    KEEP_ALIVE,
    NATIVE_ERROR,
    OBJECT,
    STRINGS,
    TEI_ERROR,
    TEXT,
    WHOLE,
    Schema,
    given,
    sent,
    shape,
)

_COUNT = WHOLE | {"minimum": 1}
_SCORE = {"type": "number"}
_DOCUMENT = OBJECT | {"description": "Text in `text`, or in the fields that `rank_fields` names."}
_BODY = {
    "model": {"type": "string", "description": "Installed reranker; absent: the only one."},
    "query": TEXT | {"minLength": 1, "description": "Never cut."},
    "documents": {"type": "array", "minItems": 1, "items": {"anyOf": [TEXT, _DOCUMENT]}},
    "top_n": _COUNT | {"description": "How many results; absent: all."},
    "return_documents": FLAG,
    "rank_fields": STRINGS
    | {
        "minItems": 1,
        "description": "Fields of documents that are objects; their texts are joined by line ends.",
    },
    "max_tokens_per_doc": _COUNT
    | {"description": "Documents are cut to so many tokens, besides to what fits."},
    "raw_scores": FLAG | {"description": "Scores are the model's logits instead of 0 to 1."},
    "truncate": FLAG
    | {"description": "false: a document that does not fit beside the query is an error."},
    "truncation_direction": {"enum": ["Right", "right"]},
    "keep_alive": KEEP_ALIVE,
}
_TEXTS = {
    "texts": STRINGS | {"minItems": 1, "description": "Instead of `documents`."},
    "return_text": FLAG,
    "truncate": FLAG
    | {
        "description": "false: what does not fit beside the query is an error. "
        "true unless it is said otherwise, with `texts` false."
    },
}
_RESULTS = {
    "type": "array",
    "items": shape(
        {
            "index": WHOLE | {"description": "Position in `documents`."},
            "relevance_score": _SCORE,
            "document": _DOCUMENT,
        },
        ["index", "relevance_score"],
    ),
}
_TOKENS = shape({"prompt_tokens": WHOLE, "total_tokens": WHOLE})
_V2 = {"id": TEXT, "results": _RESULTS, "meta": OBJECT}
_V1 = _V2 | {"object": TEXT, "model": TEXT, "usage": _TOKENS}
_OWN = {
    "model": TEXT,
    "results": _RESULTS,
    "total_duration": WHOLE | {"description": "Nanoseconds."},
    "load_duration": WHOLE | {"description": "Nanoseconds."},
    "prompt_eval_count": WHOLE | {"description": "Tokens of all pairs."},
}
_ROW = shape({"index": WHOLE, "score": _SCORE, "text": TEXT}, ["index", "score"])
_TEI = {"anyOf": [{"type": "array", "items": _ROW}, shape(_V1)]}

_COHERE_ERRORS = ("400 404 413 429 500 503", COHERE_ERROR)


def _ranked(reply: Schema) -> Schema:
    return given("The documents, the most relevant first.", reply)


RERANK_SCHEMAS = {
    "/api/rerank": describe_hot(
        "Rank documents by relevance to a query",
        "rerank",
        sent(_BODY, ["query", "documents"]),
        _ranked(shape(_OWN)),
        ("400 404 413 500 503", NATIVE_ERROR),
    ),
    "/v1/rerank": describe_hot(
        "Rank documents (Cohere v1, Jina)",
        "rerank",
        sent(_BODY, ["query", "documents"]),
        _ranked(shape(_V1)),
        _COHERE_ERRORS,
    ),
    "/v2/rerank": describe_hot(
        "Rank documents (Cohere v2)",
        "rerank",
        sent(_BODY, ["query", "documents"]),
        _ranked(shape(_V2)),
        _COHERE_ERRORS,
    ),
    "/rerank": describe_hot(
        "Rank texts (Text Embeddings Inference), or documents as under /v1",
        "rerank",
        sent(_BODY | _TEXTS, ["query"]),
        _ranked(_TEI),
        ("404 413 422 424 429 503", TEI_ERROR),
    ),
}
