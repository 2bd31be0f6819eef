"""Errors to HTTP: one table of statuses, one body shape for each dialect."""

import logging
from collections.abc import Callable
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from embedserve import errors
from embedserve.errors import EmbedserveError

logger = logging.getLogger(__name__)

# The most specific class that matches decides.
STATUS: dict[type[EmbedserveError], int] = {
    errors.InvalidRequestError: 400,
    errors.TooLargeError: 413,
    errors.NotFoundError: 404,
    errors.PathNotAllowedError: 403,
    errors.ConflictError: 409,
    errors.OverloadedError: 503,
    # Also under /v1: 504 is the word of a gateway about others, 429 blames the client's rate.
    errors.DeadlineError: 503,
    errors.VectorStoreError: 503,
    errors.ModelError: 500,
    EmbedserveError: 500,
}

OPENAI_TYPES = {404: "not_found_error", 429: "rate_limit_error", 503: "api_error"}

TEI_TYPES = {404: "NotFound", 429: "Overloaded", 500: "Backend", 503: "Unhealthy"}

# Reranking under foreign paths. Cohere's clients read `message`, Jina's `detail`; both call /v1.
RERANK_ERRORS: dict[str, Callable[[int, str], dict[str, Any]]] = {
    "/v1/rerank": lambda status, message: {"message": message, "detail": message},
    "/v2/rerank": lambda status, message: {"message": message},
    "/rerank": lambda status, message: {
        "error": message,
        "error_type": TEI_TYPES.get(status, "Validation"),
    },
}

BUG = "Unexpected failure; the server's log has the details."


def install(app: FastAPI) -> None:
    """Give the app an answer for every error, in the dialect of the path that was called."""
    app.add_exception_handler(EmbedserveError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_bug)


def status_of(error: EmbedserveError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def error_response(path: str, status: int, message: str, *, retry_after_s: int = 1) -> Response:
    """Return an error as the dialect of `path` writes it."""
    body: dict[str, Any] = {"error": message}
    media_type = "application/json; charset=utf-8"
    if path in RERANK_ERRORS:
        body, media_type = RERANK_ERRORS[path](status, message), "application/json"
    elif path.startswith("/v1/"):
        fallback = "invalid_request_error" if status < 500 else "api_error"
        kind = OPENAI_TYPES.get(status, fallback)
        body = {"error": {"message": message, "type": kind, "param": None, "code": None}}
        media_type = "application/json"
    headers = {"Retry-After": str(retry_after_s)} if status in (429, 503) else None
    return Response(orjson.dumps(body), status, headers, media_type)


def respond(path: str, error: EmbedserveError) -> Response:
    """Return a deliberate error as the dialect of `path` writes it."""
    status, retry_after_s = status_of(error), 1
    if isinstance(error, errors.OverloadedError):
        retry_after_s = error.retry_after_s or 1
        # OpenAI's, Cohere's and TEI's clients back off on 429, Ollama's know 503 only.
        status = 429 if path.startswith("/v1/") or path in RERANK_ERRORS else status
    return error_response(path, status, error.message, retry_after_s=retry_after_s)


def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, EmbedserveError)  # Starlette dispatches by class
    return respond(request.url.path, error)


def _on_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    return error_response(request.url.path, 400, f"`{name}`: {first['msg']}.")


def _on_http(request: Request, error: Exception) -> Response:
    """Answer unknown routes and methods; Ollama's own paths get Ollama's plain text."""
    assert isinstance(error, HTTPException)
    text = {404: "404 page not found", 405: "405 method not allowed"}.get(
        error.status_code, str(error.detail)
    )
    path = request.url.path
    if path.startswith(("/api/", "/v1/")):
        return Response(text, error.status_code, error.headers, "text/plain")
    hint = f"{text}: {request.method} {path}. The routes are listed at /docs."
    return error_response(path, error.status_code, hint)


def _on_bug(request: Request, error: Exception) -> Response:
    logger.error("unexpected failure in %s %s", request.method, request.url.path, exc_info=error)
    return error_response(request.url.path, 500, BUG)
