"""What a sender may call a document and say of it. Names are words here, never paths."""

import json
from collections.abc import Mapping
from typing import Any

from embedserve.errors import InvalidRequestError, TooLargeError

MAX_NAME_CHARS = 1000


def check_name(name: str) -> str:
    """Return what a document is listed under, or raise InvalidRequestError.

    Leading slashes are dropped, so that no upload is taken for a file of this machine.
    """
    listed = name.lstrip("/")
    if not listed or len(listed) > MAX_NAME_CHARS:
        raise InvalidRequestError(
            f"A document's name has 1 to {MAX_NAME_CHARS} characters; this one has {len(listed)}."
        )
    if any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in listed):
        raise InvalidRequestError(f"The name {name[:100]!a} has control characters.")
    try:
        listed.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"The name {name[:100]!a} is not valid Unicode.") from error
    return listed


def check_metadata(value: object, *, limit_bytes: int) -> str:
    """Return metadata as the JSON that is stored; raise InvalidRequestError or TooLargeError.

    An object of strings, numbers, booleans, null and lists of strings.
    """
    if not isinstance(value, Mapping):
        raise InvalidRequestError('`metadata` must be an object such as {"team": "sales"}.')
    for key, item in value.items():
        items = item if isinstance(item, list) else [item]
        if not all(isinstance(one, str | int | float | None) for one in items):
            raise InvalidRequestError(
                f"Metadata `{str(key)[:100]}` must be a string, number, boolean, null or a list "
                "of strings."
            )
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except ValueError as error:
        raise InvalidRequestError(f"`metadata` cannot be stored: {error}.") from error
    if "\\u0000" in text and _has_nul(value):
        raise InvalidRequestError("`metadata` holds a NUL, at which the catalog would cut it.")
    if size > limit_bytes:
        raise TooLargeError(
            f"`metadata` has {size} bytes; {limit_bytes} are allowed "
            "(EMBEDSERVE_MAX_METADATA_BYTES)."
        )
    return text


def _has_nul(value: Mapping[str, Any]) -> bool:
    items = [one for item in value.values() for one in (item if isinstance(item, list) else [item])]
    return any("\0" in one for one in (*value, *items) if isinstance(one, str))


def parse_metadata(text: str) -> Any:  # noqa: ANN401  any JSON value, until it is checked
    """Return metadata that came as text; raise InvalidRequestError."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidRequestError(f"`metadata` is not valid JSON: {error}.") from error
