"""How Text Embeddings Inference says what went wrong: statuses and types. Knows no routes."""

from typing import Any

from embedserve.errors import EmbedserveError, InputTooLongError, OverloadedError, TooLargeError

ERROR_TYPES = {
    424: "Backend",
    429: "Overloaded",
    500: "Backend",
    503: "Unhealthy",
}
"""By status; every other one is `Validation`."""


def status_of(status: int, error: EmbedserveError | None) -> int:
    """Return the status that its clients know for what is `status` elsewhere."""
    if isinstance(error, OverloadedError):
        return 429
    if isinstance(error, InputTooLongError | TooLargeError):
        return 413
    return {400: 422, 500: 424}.get(status, status)


def body_of(status: int, message: str) -> dict[str, Any]:
    """Return what is sent with a status of `status_of`."""
    return {"error": message, "error_type": ERROR_TYPES.get(status, "Validation")}
