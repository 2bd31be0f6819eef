"""Every route of the server, and what a protected index shows there; `{name}` is the vault."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.identity_vault import QUESTION, Body, Vault, chat, tool_call


@dataclass(frozen=True)
class Row:
    """How a route is asked for what it shows of the index."""

    body: Callable[[Vault], Body] = lambda _: {}
    shows: str = "texts"
    """Which of CHECKS is made of the answer."""


def of(body: Body, shows: str = "texts") -> Row:
    return Row(lambda _: body, shows)


READS: dict[tuple[str, str], Row] = {
    ("GET", "/indexes"): of({}, "facts"),
    ("GET", "/indexes/{name}"): of({}, "facts"),
    ("GET", "/indexes/{name}/export"): of({}, "all or nothing"),
    ("GET", "/indexes/{name}/documents"): of({}, "names"),
    ("GET", "/indexes/{name}/documents/{path:path}"): of({}, "one of ann"),
    ("GET", "/d/{document}"): of({}, "one of ann"),
    ("GET", "/d/{document}/original"): of({}, "one of ann"),
    ("GET", "/jobs"): of({}, "changers"),
    ("GET", "/jobs/{job_id}"): of({}, "changers"),
    ("GET", "/jobs/{job_id}/events"): of({}, "changers"),
    ("GET", "/v1/files"): of({}, "one of ann"),
    ("GET", "/v1/files/{file_id}"): of({}, "one of ann"),
    ("GET", "/v1/files/{file_id}/content"): of({}, "one of ann"),
    ("GET", "/v1/vector_stores"): of({}, "facts"),
    ("GET", "/v1/vector_stores/{name}"): of({}, "facts"),
    ("GET", "/v1/vector_stores/{name}/files"): of({}, "attributes"),
    ("GET", "/v1/vector_stores/{name}/files/{file_id}"): of({}, "attributes"),
    ("GET", "/v1/vector_stores/{name}/files/{file_id}/content"): of({}, "one of ann"),
    ("GET", "/v1/vector_stores/{name}/file_batches/{batch_id}"): of({}, "changers"),
    ("GET", "/v1/vector_stores/{name}/file_batches/{batch_id}/files"): of({}, "changers"),
    ("POST", "/indexes/{name}/query"): of({"json": {"query": QUESTION, "explain": True}}),
    ("POST", "/query"): of({"json": {"query": QUESTION, "indexes": ["vault"], "explain": True}}),
    ("POST", "/retrieval"): of(
        {"json": {"knowledge_id": "vault", "query": QUESTION, "retrieval_setting": {"top_k": 20}}}
    ),
    ("POST", "/v1/vector_stores/{name}/search"): of(
        {"json": {"query": QUESTION, "max_num_results": 20}}
    ),
    ("POST", "/tools/{name}"): of({"path": "/tools/search_chunks", "json": {"query": QUESTION}}),
    ("POST", "/mcp"): of(tool_call("search_chunks", query=QUESTION, k=20)),
    ("POST", "/v1/chat/completions"): of(chat()),
    ("POST", "/openwebui/v1/chat/completions"): of(chat()),
    ("POST", "/api/chat"): of(chat()),
}
"""Routes that show something of an index."""

BY_ID: dict[str, Row] = {
    "fetch": Row(lambda v: {"path": "/tools/fetch", "json": {"id": v.page}}, "one of ann"),
    "read_range": Row(
        lambda v: {"path": "/tools/read_range", "json": {"id": v.page, "start": 0, "end": 900}},
        "one of ann",
    ),
    "mcp fetch": Row(lambda v: {"path": "/mcp", **tool_call("fetch", id=v.page)}, "one of ann"),
    "search": of({"path": "/tools/search", "json": {"query": QUESTION}}, "names"),
    "list_indexes": of({"path": "/tools/list_indexes", "json": {}}, "facts"),
    "misspelt": of(
        {"path": "/indexes/vault/query", "json": {"query": "secretmarmelade", "mode": "lexical"}},
        "facts",
    ),
    "asked for what is not theirs": of(
        {
            "path": "/indexes/vault/query",
            "json": {"query": "secretbergamot", "filter": {"metadata": {"bobkey": 1}}},
        },
        "one of bob",
    ),
}
"""More ways than one into the same routes."""

CHANGES: dict[tuple[str, str], Body] = {
    ("PUT", "/indexes/{name}"): {"json": {}},
    ("DELETE", "/indexes/{name}"): {},
    ("PUT", "/indexes/{name}/documents/{path:path}"): {"content": "mine"},
    ("DELETE", "/indexes/{name}/documents/{path:path}"): {},
    ("POST", "/indexes/{name}/documents"): {"json": {"text": "x", "name": "ann"}},
    ("POST", "/indexes/{name}/documents/delete"): {"json": {"filter": {"paths": ["*"]}}},
    ("POST", "/indexes/{name}/ingest"): {"json": {"path": "/tmp", "dry_run": True}},
    ("POST", "/indexes/{name}/check"): {"json": {}},
    ("POST", "/indexes/{name}/rebuild"): {},
    ("POST", "/jobs/{job_id}/cancel"): {},
    ("POST", "/jobs/{job_id}/retry"): {},
    ("DELETE", "/v1/files/{file_id}"): {},
    ("POST", "/v1/vector_stores/{name}"): {"json": {"name": "mine"}},
    ("DELETE", "/v1/vector_stores/{name}"): {},
    ("POST", "/v1/vector_stores/{name}/files"): {"json": {"file_id": "{file_id}"}},
    ("POST", "/v1/vector_stores/{name}/files/{file_id}"): {"json": {"attributes": {}}},
    ("DELETE", "/v1/vector_stores/{name}/files/{file_id}"): {},
    ("POST", "/v1/vector_stores/{name}/file_batches"): {"json": {"file_ids": ["{file_id}"]}},
    ("POST", "/v1/vector_stores/{name}/file_batches/{batch_id}/cancel"): {},
}
"""Routes that change something: no user token may."""

ELSEWHERE = {
    # Of models, of the machine, of what comes in the request itself.
    "GET": "/ /api/version /health /ready /api/tags /api/ps /api/status /v1/models "
    "/v1/models/{name:path} /openwebui/v1/models /info /metrics /docs /docs/oauth2-redirect /redoc "
    "/openapi.json /tools/openapi.json /api/blobs/{digest}",
    "PUT": "/process",
    "DELETE": "/api/delete",
    "POST": "/api/embed /api/embeddings /api/show /api/rerank /api/tokenize /api/detokenize "
    "/api/generate /v1/embeddings /v1/rerank /v2/rerank /v1/completions /v1/responses /v1/messages "
    "/v1/audio/transcriptions /embed /embed_all /rerank /similarity /tokenize /decode /api/pull "
    "/api/push /api/copy /api/create /api/blobs/{digest} /api/me /api/signout /vacuum "
    # What comes is new, and files are nobody's until they are attached.
    "/indexes/import /v1/files /v1/vector_stores",
}
LIBRECHAT = {
    "GET": "health ids documents documents/{file_id}/context",
    "POST": "embed embed-upload text query query_multiple",
    "DELETE": "documents",
}
"""They read no key and no forwarded token, but LibreChat's own: a test of their own below."""

ROWS = {**{f"{method} {path}": (method, path, row) for (method, path), row in READS.items()},
        **{name: ("POST", "", row) for name, row in BY_ID.items()}}  # fmt: skip
LINKING = {
    *(f"POST /{path}" for path in ("indexes/{name}/query", "query", "retrieval", "tools/{name}")),
    *(f"POST /{path}" for path in ("mcp", "v1/chat/completions", "api/chat")),
    "POST /openwebui/v1/chat/completions",
    *("fetch", "read_range", "mcp fetch", "search"),
}
"""Rows that give links to documents, besides the pages themselves."""
