"""Request bodies. The content type is ignored: `curl -d` sends JSON as a form, and it works."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import orjson
from fastapi import Request
from pydantic import BaseModel, ValidationError

from embedserve.errors import InvalidRequestError, TooLargeError

M = TypeVar("M", bound=BaseModel)

_JSON_SPACE = " \t\r\n"
_LENIENT_BESIDE_BYTES = 256 * 1024
"""Longer bodies that are not JSON to the letter are read beside the event loop (64 MiB: 1.5 s)."""


class LimitedBody:
    """Gather a body's parts; raise TooLargeError as soon as they pass the limit."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, part: bytes) -> None:
        """Take the next part."""
        self._size += len(part)
        if self._size > self._limit_bytes:
            raise TooLargeError(
                f"The request is larger than {self._limit_bytes} bytes "
                "(EMBEDSERVE_MAX_REQUEST_BYTES); send it in parts."
            )
        self._parts.append(part)

    def whole(self) -> bytes:
        """Return what was gathered."""
        return b"".join(self._parts)


async def read_body(request: Request) -> bytes:
    """Return the whole body, once or again; raise TooLargeError as soon as it passes the limit."""
    if hasattr(request.state, "body"):
        known: bytes = request.state.body
        return known
    gathered = LimitedBody(request.app.state.max_request_bytes)
    async for part in request.stream():
        gathered.add(part)
    body = request.state.body = gathered.whole()
    return body


async def read_object(request: Request) -> dict[str, Any]:
    """Return the body as a JSON object; raise InvalidRequestError otherwise."""
    return await parse_object(await read_body(request))


async def read_list(request: Request) -> list[str]:
    """Return the body as a JSON list of strings; raise InvalidRequestError otherwise."""
    try:
        value = orjson.loads(await read_body(request))
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"The body is not valid JSON: {error}") from error
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidRequestError("The body must be a JSON list of strings.")
    return value


async def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that `body` is; raise InvalidRequestError otherwise."""
    if not body.strip():
        raise InvalidRequestError("missing request body")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if len(body) > _LENIENT_BESIDE_BYTES:
            value = await asyncio.to_thread(_first_value, body, error)
        else:
            value = _first_value(body, error)
    if not isinstance(value, dict):
        raise InvalidRequestError("The body must be a JSON object.")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


# Refused at once, and not only at the end of a long body.
_LENIENT = json.JSONDecoder(parse_constant=_refuse_constant)


def _first_value(body: bytes, refusal: orjson.JSONDecodeError) -> object:
    """Read what Ollama reads though it is not JSON to the letter; raise InvalidRequestError.

    Whatever follows the first value is ignored, and half a surrogate pair, which JavaScript sends
    where it cut a text in the middle of an emoji, becomes U+FFFD.
    """
    try:
        first, _ = _LENIENT.raw_decode(body.decode().lstrip(_JSON_SPACE))
        text = json.dumps(first, ensure_ascii=False)
        # UTF-16 joins pairs that came as two escapes, and only what has no partner is replaced.
        whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return orjson.loads(whole)  # which takes no numbers without bounds
    except (ValueError, RecursionError):
        raise InvalidRequestError(f"The body is not valid JSON: {refusal}") from refusal


async def read_model(request: Request, model: type[M]) -> M:
    """Return the body checked against a pydantic model; the error names the field at fault."""
    return check_model(await read_object(request), model)


def check_model(value: object, model: type[M]) -> M:
    """Return a JSON value as a pydantic model; raise InvalidRequestError that names the field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        known = ", ".join(f"`{field}`" for field in model.model_fields)
        raise InvalidRequestError(
            f"Field `{name}`: {first['msg']}. The fields are {known}."
        ) from error


def describe_body(model: type[BaseModel], *, is_required: bool = True) -> dict[str, Any]:
    """Return what the OpenAPI document says of a body that `read_model` reads."""
    schema = {"schema": schema_of(model)}
    return {"requestBody": {"required": is_required, "content": {"application/json": schema}}}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON Schema of a model without references: whoever embeds it has other roots."""
    whole = model.model_json_schema()
    found: dict[str, Any] = _inlined(whole, whole.pop("$defs", {}))
    return found


def _inlined(part: Any, definitions: Mapping[str, Any]) -> Any:  # noqa: ANN401  any JSON value
    """Return a part of a schema with each reference replaced by what it refers to."""
    if isinstance(part, list):
        return [_inlined(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    name = part.get("$ref", "").rpartition("/")[2]
    flat = {**definitions[name], **part} if name else part
    return {key: _inlined(item, definitions) for key, item in flat.items() if key != "$ref"}


class Fields:
    """A JSON object read as Ollama does: names in any case, null is absent, unknown ones ignored.

    An exact spelling wins over another case of the same name.
    """

    def __init__(self, value: Mapping[str, Any]) -> None:
        self.given = value
        """As it came."""
        self._values = {name.lower(): item for name, item in value.items()}
        self._values |= {name: item for name, item in value.items() if name.islower()}

    def has_any(self, names: frozenset[str]) -> bool:
        """Tell whether one of `names`, all in lower case, is there, be it as null."""
        return not names.isdisjoint(self._values)

    def items(self) -> Mapping[str, Any]:
        """Return every field that is there, by its name in lower case."""
        return {name: self.raw(name) for name in self._values if name.islower()}

    def raw(self, name: str) -> Any:  # noqa: ANN401  any JSON value, by definition
        """Return the value as it came; None where it is absent."""
        return self._values.get(name)

    def text(self, name: str) -> str:
        """Return a string; empty where it is absent."""
        value = self.raw(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise _wrong_type(name, "a string", value)
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a boolean."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise _wrong_type(name, "true or false", value)
        return value

    def whole(self, name: str) -> int | None:
        """Return a whole number; None where it is absent."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(name, "a whole number", value)
        return value

    def texts(self, name: str) -> list[str]:
        """Return one string or a list of them as a list; empty where it is absent."""
        value = self.raw(name)
        if value is None:
            return []
        if isinstance(value, str):
            return [value]
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return value
        raise _wrong_type(name, "a string or a list of strings", value)

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """Return one of a few words, in any case; None where it is absent or empty."""
        if self.raw(name) is None:
            return None
        value = self.text(name)
        if value.lower() in ("", *choices):
            return value.lower() or None
        known = ", ".join(f"`{choice}`" for choice in choices)
        raise InvalidRequestError(
            f"field `{name}` must be one of {known}, not `{value[:100]}`", field=name
        )

    def table(self, name: str) -> "Fields":
        """Return an object; empty where it is absent."""
        value = self.raw(name)
        if value is None:
            return Fields({})
        if not isinstance(value, dict):
            raise _wrong_type(name, "an object", value)
        return Fields(value)


def _wrong_type(name: str, wanted: str, value: object) -> InvalidRequestError:
    kind = {str: "a string", bool: "a boolean", list: "an array", dict: "an object"}
    got = kind.get(type(value), "a number")
    return InvalidRequestError(f"field `{name}` must be {wanted}, not {got}", field=name)
