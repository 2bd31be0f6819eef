"""Which scope each route needs, for servers that have API keys. The one table of it.

A route that has no row here needs `admin`; a test fails for one of ours that has none.
"""

from starlette.routing import compile_path

OPEN, READ, INGEST, ADMIN = "open", "read", "ingest", "admin"
SCOPES = (READ, INGEST, ADMIN)
"""`admin` includes the others; `read` and `ingest` do not include each other."""

_LIBRECHAT: dict[str, tuple[str, ...]] = {
    "GET": tuple(f"/librechat/{path}" for path in
                 ("health", "ids", "documents", "documents/{file_id}/context")),
    "POST": tuple(f"/librechat/{path}" for path in
                  ("embed", "embed-upload", "text", "query", "query_multiple")),
    "DELETE": ("/librechat/documents",),
}  # fmt: skip

# Scope -> method -> paths, as the routes spell them. HEAD is GET.
_TABLE: dict[str, dict[str, tuple[str, ...]]] = {
    # Probes, which carry no key, what clients ask before anything else, and links to documents,
    # which carry a code of their own. LibreChat's calls are signed, which their own routes check.
    OPEN: {"GET": ("/", "/api/version", "/health", "/ready", "/d/{document}",
                   "/d/{document}/original", *_LIBRECHAT["GET"]),
           "POST": _LIBRECHAT["POST"], "DELETE": _LIBRECHAT["DELETE"]},
    READ: {
        "GET": (
            "/api/tags", "/api/ps", "/api/status", "/v1/models", "/v1/models/{name:path}",
            "/openwebui/v1/models",
            "/indexes", "/indexes/{name}", "/indexes/{name}/export",
            "/indexes/{name}/documents", "/indexes/{name}/documents/{path:path}",
            "/jobs", "/jobs/{job_id}", "/jobs/{job_id}/events",
            "/info", "/metrics", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json",
            "/tools/openapi.json",
            "/v1/files", "/v1/files/{file_id}", "/v1/files/{file_id}/content",
            "/v1/vector_stores", "/v1/vector_stores/{name}", "/v1/vector_stores/{name}/files",
            "/v1/vector_stores/{name}/files/{file_id}",
            "/v1/vector_stores/{name}/files/{file_id}/content",
            "/v1/vector_stores/{name}/file_batches/{batch_id}",
            "/v1/vector_stores/{name}/file_batches/{batch_id}/files",
        ),
        "PUT": ("/process",),
        "POST": (
            "/api/embed", "/api/embeddings", "/api/show", "/api/rerank", "/api/tokenize",
            "/api/detokenize", "/api/generate", "/api/chat",
            "/v1/embeddings", "/v1/rerank", "/v2/rerank",
            "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages",
            "/v1/audio/transcriptions", "/openwebui/v1/chat/completions",
            "/embed", "/embed_all", "/rerank", "/similarity", "/tokenize", "/decode",
            "/indexes/{name}/query", "/query", "/mcp", "/retrieval",
            "/tools/{name}", "/v1/vector_stores/{name}/search",
        ),
    },
    INGEST: {
        "PUT": ("/indexes/{name}", "/indexes/{name}/documents/{path:path}"),
        "DELETE": ("/indexes/{name}", "/indexes/{name}/documents/{path:path}",
                   "/v1/files/{file_id}", "/v1/vector_stores/{name}",
                   "/v1/vector_stores/{name}/files/{file_id}"),
        "POST": (
            "/indexes/{name}/ingest", "/indexes/{name}/check", "/indexes/{name}/rebuild",
            "/indexes/import", "/indexes/{name}/documents", "/indexes/{name}/documents/delete",
            "/jobs/{job_id}/cancel", "/jobs/{job_id}/retry",
            "/v1/files", "/v1/vector_stores", "/v1/vector_stores/{name}",
            "/v1/vector_stores/{name}/files", "/v1/vector_stores/{name}/files/{file_id}",
            "/v1/vector_stores/{name}/file_batches",
            "/v1/vector_stores/{name}/file_batches/{batch_id}/cancel",
        ),
    },
    ADMIN: {
        "GET": ("/api/blobs/{digest}",),
        "DELETE": ("/api/delete",),
        "POST": (
            "/api/pull", "/api/push", "/api/copy", "/api/create", "/api/blobs/{digest}",
            "/api/me", "/api/signout", "/vacuum",
        ),
    },
}  # fmt: skip

ROWS: dict[tuple[str, str], str] = {
    (method, path): scope
    for scope, methods in _TABLE.items()
    for method, paths in methods.items()
    for path in paths
}
_PATTERNS = [
    (method, compile_path(path)[0], scope) for (method, path), scope in ROWS.items() if "{" in path
]


def scope_of(method: str, path: str) -> str:
    """Return the scope that a request needs; what has no row needs `admin`."""
    method = "GET" if method == "HEAD" else method
    return ROWS.get((method, path)) or _of_pattern(method, path)


def _of_pattern(method: str, path: str) -> str:
    found = (scope for of, pattern, scope in _PATTERNS if of == method and pattern.match(path))
    return next(found, ADMIN)
