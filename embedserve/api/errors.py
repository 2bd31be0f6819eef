"""Errors to HTTP: one table of statuses, one body shape for each dialect."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from embedserve import errors
from embedserve.api import schema_parts
from embedserve.api import tei_errors as tei
from embedserve.api.schema_parts import Schema
from embedserve.errors import EmbedserveError

logger = logging.getLogger(__name__)

# The most specific class that matches decides.
STATUS: dict[type[EmbedserveError], int] = {
    errors.InvalidRequestError: 400,
    errors.TooLargeError: 413,
    errors.NotFoundError: 404,
    errors.AccessError: 401,
    errors.ForbiddenError: 403,
    errors.PathNotAllowedError: 403,
    errors.ConflictError: 409,
    errors.OverloadedError: 503,
    # Also under /v1: 504 is the word of a gateway about others, 429 blames the client's rate.
    errors.DeadlineError: 503,
    errors.VectorStoreError: 503,
    errors.CatalogUnavailableError: 503,
    errors.UpstreamError: 502,
    errors.UpstreamSilentError: 504,
    # A file that is no part of an index, sent for its text.
    errors.ExtractionError: 422,
    errors.ModelError: 500,
    # Sending it again changes nothing, and Ollama's clients know it as 400.
    errors.NotFiniteError: 400,
    EmbedserveError: 500,
}

OPENAI_TYPES = {404: "not_found_error", 429: "rate_limit_error", 503: "api_error"}

OPENAI_CODES: dict[type[EmbedserveError], str] = {
    errors.ModelNotFoundError: "model_not_found",
    errors.ChatModelNotFoundError: "model_not_found",
    errors.InputTooLongError: "context_length_exceeded",
    errors.OverloadedError: "rate_limit_exceeded",
}
"""What OpenAI's clients can tell errors apart by besides the type."""

DIFY_CODES = {401: 1002, 403: 1002}
"""By status, where no error says more; others are told by the status itself."""


@dataclass(frozen=True)
class ErrorShape:
    """How the clients of a dialect want to be told of errors."""

    body: Callable[[int, str, EmbedserveError | None], dict[str, Any]]
    """Of the status, the message, and the error where it is a deliberate one."""
    status: Callable[[int, EmbedserveError | None], int]
    """What is of some status elsewhere."""
    schema: Schema
    """What the OpenAPI document says of such a body."""
    media_type: str = "application/json"


def _told_to_wait(status: int, error: EmbedserveError | None) -> int:
    """Return 429 for a full queue, on which clients back off; Ollama's know 503 only."""
    return 429 if isinstance(error, errors.OverloadedError) else status


def _openai_body(status: int, message: str, error: EmbedserveError | None) -> dict[str, Any]:
    fallback = "invalid_request_error" if status < 500 else "api_error"
    code = next((word for kind, word in OPENAI_CODES.items() if isinstance(error, kind)), None)
    told = {
        "message": message,
        "type": OPENAI_TYPES.get(status, fallback),
        "param": error.field if isinstance(error, errors.InvalidRequestError) else None,
        "code": code,
    }
    return {"error": told}


def _dify_body(status: int, message: str, error: EmbedserveError | None) -> dict[str, Any]:
    code = DIFY_CODES.get(status, status)
    if isinstance(error, errors.KeyMissingError):
        code = 1001
    elif isinstance(error, errors.IndexNotFoundError):
        code = 2001
    return {"error_code": code, "error_msg": message}


NATIVE = ErrorShape(
    lambda status, message, error: {"error": message},
    lambda status, error: status,
    schema_parts.NATIVE_ERROR,
    "application/json; charset=utf-8",
)
OPENAI = ErrorShape(_openai_body, _told_to_wait, schema_parts.OPENAI_ERROR)
TEI = ErrorShape(
    lambda status, message, error: tei.body_of(status, message),
    tei.status_of,
    schema_parts.TEI_ERROR,
)
# Dify takes a knowledge base whose key is refused with 401, and refuses one with 403.
DIFY = ErrorShape(
    _dify_body, lambda status, error: 403 if status == 401 else status, schema_parts.DIFY_ERROR
)

# Of FastAPI, which its clients were written for.
DETAIL = ErrorShape(
    lambda status, message, error: {"detail": message},
    lambda status, error: status,
    schema_parts.DETAIL_ERROR,
)

SHAPES: Mapping[str, ErrorShape] = {
    "/retrieval": DIFY,
    "/process": DETAIL,
    "/embed": TEI,
    "/info": TEI,
    "/rerank": TEI,
    # Cohere's clients read `message`, Jina's `detail`; both call this one.
    "/v1/rerank": ErrorShape(
        lambda status, message, error: {"message": message, "detail": message},
        _told_to_wait,
        schema_parts.COHERE_ERROR,
    ),
    "/v2/rerank": ErrorShape(
        lambda status, message, error: {"message": message},
        _told_to_wait,
        schema_parts.COHERE_ERROR,
    ),
}
"""By path; others go by how they begin, and else are ours."""
_BEGINNINGS = (("/v1/", OPENAI), ("/openwebui/v1/", OPENAI), ("/librechat/", DETAIL))

BUG = "Unexpected failure; the server's log has the details."


def install(app: FastAPI) -> None:
    """Give the app an answer for every error, in the dialect of the path that was called."""
    app.add_exception_handler(EmbedserveError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_leaving)
    app.add_exception_handler(Exception, _on_bug)


def status_of(error: EmbedserveError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def error_response(
    path: str,
    status: int,
    message: str,
    *,
    retry_after_s: int = 1,
    error: EmbedserveError | None = None,
) -> Response:
    """Return an error as the dialect of `path` writes it."""
    shape = shape_of(path)
    status = shape.status(status, error)
    body = orjson.dumps(shape.body(status, message, error))
    headers = {"Retry-After": str(retry_after_s)} if status in (429, 503) else None
    return Response(body, status, headers, shape.media_type)


def respond(path: str, error: EmbedserveError) -> Response:
    """Return a deliberate error as the dialect of `path` writes it."""
    status, retry_after_s = status_of(error), 1
    # A model's failure is told in full, and comes with each request; this is the server's own.
    if status == 500 and not isinstance(error, errors.ModelError):
        logger.error("failure in %s", path, exc_info=error)
    if isinstance(error, errors.OverloadedError):
        retry_after_s = error.retry_after_s or 1
    return error_response(path, status, error.message, retry_after_s=retry_after_s, error=error)


def shape_of(path: str) -> ErrorShape:
    """Return how errors of a path are written."""
    begun = (shape for beginning, shape in _BEGINNINGS if path.startswith(beginning))
    return SHAPES.get(path) or next(begun, NATIVE)


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


def _on_leaving(request: Request, error: Exception) -> Response:
    """Answer nobody: the client left before the end of its body, which is no failure here."""
    return Response(status_code=499)


def _on_bug(request: Request, error: Exception) -> Response:
    logger.error("unexpected failure in %s %s", request.method, request.url.path, exc_info=error)
    return error_response(request.url.path, 500, BUG)
