"""What a sender may call a document, say of it and ask for. Names are words here, never paths."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from embedserve.errors import InvalidRequestError, TooLargeError
from embedserve.types import DocumentFilter, DocumentStatus, SourceKind

MAX_NAME_CHARS = 1000
MAX_WILDCARDS = 8
"""In one glob: each may cost a pass over the name."""

Glob = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]


class FilterBody(BaseModel):
    """Which documents are meant: those that meet every condition."""

    model_config = ConfigDict(extra="forbid")

    paths: tuple[Glob, ...] = Field(default=(), max_length=1000)
    """Globs: `*` (also over `/`), `?` and `[abc]`."""
    ids: tuple[int, ...] = Field(default=(), max_length=100_000)
    metadata: dict[str, str | bool | float] = Field(default={}, max_length=100)
    """Keys with the value that they have."""
    source: SourceKind | None = None
    status: DocumentStatus | None = None


def parse_filter(value: object) -> DocumentFilter:
    """Check a filter; raise InvalidRequestError that names the key at fault."""
    try:
        body = FilterBody.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "filter"
        known = ", ".join(FilterBody.model_fields)
        raise InvalidRequestError(f"Filter, `{key}`: {first['msg']}. Known: {known}.") from error
    for glob in body.paths:
        if sum(map(glob.count, "*?[")) > MAX_WILDCARDS:
            raise InvalidRequestError(
                f"The glob `{glob[:100]}` has more than {MAX_WILDCARDS} wildcards; use fewer."
            )
    metadata = tuple(body.metadata.items())
    return DocumentFilter(body.paths, body.ids, metadata, body.source, body.status)


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
    if size > limit_bytes:
        raise TooLargeError(
            f"`metadata` has {size} bytes; {limit_bytes} are allowed "
            "(EMBEDSERVE_MAX_METADATA_BYTES)."
        )
    return text


def parse_metadata(text: str) -> Any:  # noqa: ANN401  any JSON value, until it is checked
    """Return metadata that came as text; raise InvalidRequestError."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidRequestError(f"`metadata` is not valid JSON: {error}.") from error
