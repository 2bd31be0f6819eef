"""Whether an answer holds what a client reads in it: small questions about JSON values."""

import base64
import binascii
import math
import re
import struct
from collections.abc import Callable, Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

UNIT_TOLERANCE = 1e-3
"""How far a vector's length may be from 1: float32 in decimal, and half precision inside."""

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_DIGEST = re.compile(r"[0-9a-f]{64}")

Question = Callable[[Any, Any], bool]
"""Of a value and what it is compared with."""


class MissingError(Exception):
    """The answer has nothing at that place."""


def values_at(answer: object, place: str) -> Iterator[Any]:
    """Give every value at a place, see `Need.at`; raise MissingError where there is none."""
    values: list[Any] = [answer]
    for part in place.split("/") if place else ():
        values = [found for value in values for found in _step(value, part)]
    yield from values


def _step(value: object, part: str) -> list[Any]:
    if part == "*" and isinstance(value, list):
        return value
    if part == "*" and isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list) and part.lstrip("-").isdigit():
        position = int(part)
        if -len(value) <= position < len(value):
            return [value[position]]
    elif isinstance(value, dict) and part.startswith("~"):
        found = [item for key, item in value.items() if fnmatchcase(key, part[1:])]
        if found:
            return found[:1]
    elif isinstance(value, dict) and part in value:
        return [value[part]]
    raise MissingError(part)


def _is_text(value: object, _: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object, least: object) -> bool:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return is_whole and value >= (least if isinstance(least, int) else 0)  # type: ignore[operator]


def _is_list(value: object, least: object) -> bool:
    return isinstance(value, list) and len(value) >= (least if isinstance(least, int) else 0)


def _is_object(value: object, _: object) -> bool:
    return isinstance(value, dict)


def _is_time(value: object, _: object) -> bool:
    """Tell whether Python's `datetime.fromisoformat` reads it, with a zone, as several do."""
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _is_version(value: object, least: object) -> bool:
    if not isinstance(value, str) or not _VERSION.fullmatch(value):
        return False
    return _numbers(value) >= _numbers(str(least or "0.0.0"))


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _is_digest(value: object, _: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _is_vector(value: object, _: object) -> bool:
    """Tell whether it is a list of finite numbers whose length is 1."""
    if not isinstance(value, list) or not value:
        return False
    if not all(isinstance(x, int | float) and math.isfinite(x) for x in value):
        return False
    return abs(math.hypot(*value) - 1) < UNIT_TOLERANCE


def _is_packed_vector(value: object, _: object) -> bool:
    """Tell whether it is such a vector as base64 over little-endian float32."""
    try:
        numbers = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except binascii.Error:
        return False
    return bool(numbers) and len(numbers) % 4 == 0 and _is_vector(unpacked(value), None)


def unpacked(value: object) -> list[float]:
    """Return the numbers of a vector that is written as base64."""
    packed = base64.b64decode(str(value))
    return list(struct.unpack(f"<{len(packed) // 4}f", packed))


def _are_vectors(value: object, count: object) -> bool:
    """Tell whether it is a list of so many vectors of one width."""
    if not isinstance(value, list) or len(value) != count:
        return False
    return all(_is_vector(row, None) for row in value) and len({len(row) for row in value}) == 1


def _is_share(value: object, _: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value <= 1  # type: ignore[operator]


def _lists(value: object, name: object) -> bool:
    """Tell whether a list of models has the name, with or without its tag."""
    wanted = str(name).removesuffix(":latest")
    return isinstance(value, list) and any(
        isinstance(model, dict) and str(model.get("name")).removesuffix(":latest") == wanted
        for model in value
    )


def _lists_like(value: object, pattern: object) -> bool:
    """Tell whether the name of some model in a list matches."""
    return isinstance(value, list) and any(
        isinstance(model, dict) and re.search(str(pattern), str(model.get("name")).lower())
        for model in value
    )


KINDS: dict[str, Question] = {
    "text": _is_text,
    "count": _is_count,
    "list": _is_list,
    "object": _is_object,
    "time": _is_time,
    "version": _is_version,
    "digest": _is_digest,
    "vector": _is_vector,
    "packed vector": _is_packed_vector,
    "vectors": _are_vectors,
    "share": _is_share,
    "equal": lambda value, of: bool(value == of),
    "match": lambda value, of: isinstance(value, str) and re.search(of, value) is not None,
    "containing": lambda value, of: isinstance(value, list | str) and of in value,
    "listing": _lists,
    "listing like": _lists_like,
}
"""The kinds of need by their name in the files."""
