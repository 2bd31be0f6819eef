"""What the OpenAPI document says of answers to queries. Data only; meanings are in docs/api.md."""

from embedserve.api.schema_parts import FLAG, OBJECT, STRINGS, TEXT, WHOLE, Schema, shape

_SCORE: Schema = {"type": ["number", "null"]}
_SPAN: Schema = {"type": "array", "items": WHOLE, "minItems": 2, "maxItems": 2}
_LINES: Schema = {"type": ["object", "null"]}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


_PLACE: dict[str, Schema] = {
    "id": TEXT,
    "document": shape({"id": TEXT, "path": TEXT, "title": TEXT, "metadata": OBJECT}),
    "page": {"type": ["integer", "null"]},
    "heading": STRINGS,
    "start": WHOLE,
    "end": WHOLE,
    "lines": _LINES,
    "permalink": TEXT,
}
_SENTENCE = shape({"text_start": WHOLE, "text_end": WHOLE, "start": WHOLE, "end": WHOLE})
_HIGHLIGHTS = shape({"terms": STRINGS, "spans": _list(_SPAN), "sentences": _list(_SENTENCE)})
_HIT: dict[str, Schema] = {
    **_PLACE,
    "text": TEXT,
    "score": {"type": "number"},
    "scores": shape(dict.fromkeys(("relevance", "cosine", "bm25", "fused", "reranked"), _SCORE)),
    "chunks": _list(shape({"id": TEXT, "start": WHOLE, "end": WHOLE})),
    "tokens": WHOLE,
    "places": WHOLE,
    "also_in": _list(shape(_PLACE)),
    "near_duplicates": WHOLE,
}
_SOMETIMES: dict[str, Schema] = {"highlights": _HIGHLIGHTS, "legs": OBJECT}
_FACTS: dict[str, Schema] = {
    "model": TEXT,
    "mode": {"enum": ["hybrid", "dense", "lexical"]},
    "exact": FLAG,
    "best_rejected": _SCORE,
    "suggestions": OBJECT,
    "warnings": STRINGS,
    "timings_ms": OBJECT,
}

ANSWER: Schema = shape(
    {"hits": _list(shape({**_HIT, **_SOMETIMES}, list(_HIT))), "index": TEXT, **_FACTS}
)
"""To a query of one index."""
ANSWER_OF_MANY: Schema = shape(
    {
        "hits": _list(shape({"index": TEXT, **_HIT, **_SOMETIMES}, ["index", *_HIT])),
        "indexes": {"type": "object", "additionalProperties": shape(_FACTS)},
    }
)
"""To one of several."""
