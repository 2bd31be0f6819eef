"""The OpenAPI document is true: what routes answer is in it, with its type and its fields."""

from collections.abc import Iterator
from typing import Any

import pytest

from embedserve.api.scopes import OPEN, scope_of
from tests.live import LiveServer

NAME = "all-minilm"
WITH_422 = ("/embed", "/rerank", "/process", "/librechat/text")
METHODS = ("get", "post", "put", "delete")
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


@pytest.fixture(scope="module")
def document(server: LiveServer) -> dict[str, Any]:
    found: dict[str, Any] = server.http.get("/openapi.json").json()
    return found


def has_token(path: str) -> bool:
    return path.startswith("/librechat/") and not path.endswith("/health")


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                yield path, method, methods[method]


def fits(value: object, schema: dict[str, Any]) -> bool:
    """Tell whether a value has the types and the fields that are told of it."""
    if "anyOf" in schema:
        return any(fits(value, one) for one in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kinds = schema.get("type", "object")
    if not any(isinstance(value, TYPES[k]) for k in ([kinds] if isinstance(kinds, str) else kinds)):
        return False
    if isinstance(value, list):
        return all(fits(item, schema.get("items", {"anyOf": [schema]})) for item in value[:3])
    if not isinstance(value, dict):
        return True
    properties = schema.get("properties", {})
    return set(schema.get("required", ())) <= set(value) and all(
        fits(item, properties[name]) for name, item in value.items() if name in properties
    )


CALLS: list[tuple[str, str, dict[str, Any], int]] = [
    ("GET", "/", {}, 200),
    ("GET", "/api/version", {}, 200),
    ("GET", "/api/tags", {}, 200),
    ("GET", "/api/ps", {}, 200),
    ("POST", "/api/show", {"model": NAME}, 200),
    ("POST", "/api/show", {"model": "nope"}, 404),
    ("POST", "/api/show", {"model": "rag/nope"}, 404),
    ("POST", "/api/show", {}, 400),
    ("DELETE", "/api/delete", {"model": "nope"}, 404),
    ("POST", "/api/copy", {"source": "nope", "destination": "x"}, 404),
    ("POST", "/api/create", {"model": "x"}, 400),
    ("POST", "/api/create", {"model": NAME, "from": NAME}, 409),
    ("POST", "/api/pull", {"model": NAME, "stream": False}, 200),
    ("POST", "/api/pull", {"model": "nope", "stream": False}, 404),
    ("POST", "/api/generate", {"model": NAME}, 200),
    ("POST", "/api/generate", {"model": NAME, "prompt": "a"}, 400),
    ("POST", "/api/chat", {"model": NAME}, 200),
    ("POST", "/api/chat", {"model": "rag/nope", "messages": []}, 404),
    ("POST", "/v1/chat/completions", {"model": "rag/nope", "messages": []}, 404),
    ("POST", "/v1/chat/completions", {"model": NAME, "messages": []}, 400),
    ("POST", "/openwebui/v1/chat/completions", {"messages": []}, 400),
    ("GET", "/openwebui/v1/models", {}, 200),
    ("GET", "/v1/models/rag/nope", {}, 404),
    ("POST", "/api/tokenize", {"model": NAME, "input": "a", "offsets": True}, 200),
    ("POST", "/api/tokenize", {"model": NAME, "input": "a" * 1_000_001}, 413),
    ("POST", "/api/detokenize", {"model": NAME, "tokens": [101]}, 200),
    ("POST", "/api/embed", {"model": NAME, "input": ["a", None], "on_error": "item"}, 200),
    ("POST", "/api/embed", {"model": NAME, "input": 5}, 400),
    ("POST", "/api/embed", {"model": "nope"}, 404),
    ("POST", "/api/embed", {"model": NAME, "input": ["a"] * 10_001}, 413),
    ("POST", "/api/embeddings", {"model": NAME, "prompt": "a"}, 200),
    ("POST", "/v1/embeddings", {"model": NAME, "input": "a", "dimensions": 8}, 200),
    ("POST", "/v1/embeddings", {"model": NAME, "input": []}, 400),
    ("POST", "/v1/embeddings", {"model": "nope", "input": "a"}, 404),
    ("GET", "/v1/models", {}, 200),
    ("GET", f"/v1/models/{NAME}", {}, 200),
    ("GET", "/v1/models/org/nope", {}, 404),
    ("GET", "/v1/models/no way", {}, 400),
    ("POST", "/embed", {"inputs": "a"}, 200),
    ("POST", "/embed", {"inputs": 5}, 422),
    ("POST", "/embed", {"inputs": "word " * 999}, 413),
    ("GET", "/info", {}, 200),
    # No reranker is installed.
    ("POST", "/api/rerank", {"query": "a", "documents": ["b"]}, 400),
    ("POST", "/v1/rerank", {"query": "a", "documents": ["b"]}, 400),
    ("POST", "/v1/rerank", {"query": "a", "documents": ["b"], "model": "nope"}, 404),
    ("POST", "/v2/rerank", {"query": "a", "documents": ["b"] * 10_001, "model": "x"}, 413),
    ("POST", "/rerank", {"query": "a", "texts": ["b"]}, 422),
    ("GET", "/metrics", {}, 200),
    ("GET", "/health", {}, 200),
    ("GET", "/ready", {}, 200),
    ("GET", "/d/0", {}, 404),
    ("GET", "/d/0?chars=x", {}, 400),
    ("GET", "/indexes", {}, 200),
    ("GET", "/indexes/nope", {}, 404),
    ("PUT", "/indexes/bad name!", {}, 400),
    ("DELETE", "/indexes/nope", {}, 404),
    ("POST", "/indexes/nope/query", {"query": "a"}, 404),
    ("POST", "/indexes/nope/query", {"k": 1}, 400),
    ("POST", "/query", {"query": "a", "indexes": ["nope"]}, 404),
    ("POST", "/retrieval", {"query": "a", "knowledge_id": "nope"}, 404),
    ("POST", "/retrieval", {"query": "a"}, 400),
    ("GET", "/v1/files", {}, 200),
    ("GET", "/v1/vector_stores", {}, 200),
    ("GET", "/tools/openapi.json", {}, 200),
    ("POST", "/tools/list_indexes", {}, 200),
    ("POST", "/tools/search", {"query": 5}, 400),
    ("POST", "/tools/nope", {}, 404),
    ("PUT", "/process", {"a": "text"}, 200),
    ("GET", "/librechat/health", {}, 200),
    ("GET", "/librechat/ids", {}, 404),
    ("POST", "/librechat/query", {"query": "a", "file_id": "b"}, 404),
    ("POST", "/query", {"query": "a"}, 400),
    ("POST", "/indexes/nope/ingest", {"path": "/"}, 404),
    ("GET", "/indexes/nope/documents", {}, 404),
    ("GET", "/indexes/nope/documents?source=moon", {}, 400),
    ("POST", "/indexes/nope/documents", {"text": "a"}, 404),
    ("POST", "/indexes/nope/documents", {"text": ""}, 400),
    ("POST", "/indexes/nope/documents/delete", {"filter": {"ids": [1]}}, 404),
    ("POST", "/indexes/nope/documents/delete", {"filter": {}}, 400),
    ("GET", "/indexes/nope/documents/a", {}, 404),
    ("PUT", "/indexes/nope/documents/a", {}, 404),
    ("DELETE", "/indexes/nope/documents/a", {}, 404),
    ("GET", "/jobs", {}, 200),
    ("GET", "/jobs?limit=0", {}, 400),
    ("GET", "/jobs/nope", {}, 404),
    ("POST", "/jobs/nope/cancel", {}, 404),
    ("POST", "/jobs/nope/retry", {}, 404),
    ("GET", "/jobs/nope/events", {}, 404),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), CALLS)
def test_answers_are_those_that_the_document_tells(
    server: LiveServer,
    document: dict[str, Any],
    method: str,
    path: str,
    body: dict[str, Any],
    status: int,
) -> None:
    reply = server.http.request(method, path, json=body if method != "GET" else None)
    assert reply.status_code == status, reply.text
    told = document["paths"][_template(document, path)][method.lower()]["responses"][str(status)]
    if not reply.content:
        assert "content" not in told
        return
    media_type = reply.headers["content-type"].partition(";")[0]
    schema = told["content"][media_type]["schema"]
    assert fits(reply.json() if "json" in media_type else reply.text, schema), reply.text


def _template(document: dict[str, Any], path: str) -> str:
    """Return the path of the document that a path belongs to."""
    path = path.partition("?")[0]
    if path in document["paths"]:
        return path
    parts = path.split("/")
    if path.startswith("/v1/models/"):
        return "/v1/models/{name}"
    if parts[3:4] == ["documents"] and len(parts) == 5:
        return "/indexes/{name}/documents/" + ("delete" if parts[4] == "delete" else "{path}")
    return "/".join(
        ["", parts[1], {"jobs": "{job_id}", "d": "{document}"}.get(parts[1], "{name}"), *parts[3:]]
    )


def test_a_refused_page_is_told_of_every_route(
    server: LiveServer, document: dict[str, Any]
) -> None:
    for path, method, told in operations(document):
        responses = told["responses"]
        assert "403" in responses, (path, method)
        # Dify takes 403 for it; LibreChat's routes want a token instead of a key.
        wants_key = scope_of(method.upper(), path) != OPEN and path != "/retrieval"
        assert ("401" in responses) == (wants_key or has_token(path)), (path, method)
        assert method == "get" or {"429", "503"} & set(responses), (path, method)
        assert ("422" in responses) == (path in WITH_422), (path, method)
        reply = server.http.request(method, path, headers={"Origin": "http://example.com"})
        assert reply.status_code == 403, (path, method)
        media_type = reply.headers["content-type"].partition(";")[0]
        assert fits(reply.json(), responses["403"]["content"][media_type]["schema"]), path


def test_bodies_are_told_of_every_route_that_reads_one(document: dict[str, Any]) -> None:
    without = [
        path
        for path, method, told in operations(document)
        if method in ("post", "put") and "requestBody" not in told
    ]
    assert set(without) == {
        "/jobs/{job_id}/cancel",
        "/jobs/{job_id}/retry",
        "/indexes/{name}/rebuild",
        "/vacuum",
        "/v1/vector_stores/{name}/file_batches/{batch_id}/cancel",
    }


def parts(value: object) -> Iterator[dict[str, Any]]:
    """Give every object of the document, however deep."""
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value:  # type: ignore[attr-defined]
        if isinstance(item, dict | list):
            yield from parts(item)


def test_every_reference_leads_somewhere_and_every_type_is_one(document: dict[str, Any]) -> None:
    found = list(parts(document))
    references = [part["$ref"] for part in found if isinstance(part.get("$ref"), str)]
    for reference in references:
        target: Any = document
        for name in reference.removeprefix("#/").split("/"):
            assert name in target, reference
            target = target[name]
    kinds = [part["type"] for part in found if isinstance(part.get("type"), str | list)]
    assert len(kinds) > 100
    for kind in kinds:
        assert set([kind] if isinstance(kind, str) else kind) <= set(TYPES), kind
