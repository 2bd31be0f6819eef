"""Ollama's `keep_alive`: how long a model stays in memory after a request. Parses, keeps nothing.

The grammar of the strings is that of Go's durations.
"""

import re

from embedserve.errors import InvalidRequestError

LONGEST_S = 2**63 / 1e9
"""Go counts nanoseconds in 64 bits; whatever is longer is as long as that."""

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
_MOST_CHARS = 100
"""No duration needs more; the expressions take quadratic time on long ones."""
_GO_TYPES = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}


def seconds_of(value: object) -> float | None:
    """Return seconds: negative is forever, 0 is not at all, None is what held before.

    Raises InvalidRequestError in Ollama's words. Unlike Ollama it takes a string without a unit,
    such as "300" or "-1", for seconds: clients send them.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        kind = _GO_TYPES.get(type(value), type(value).__name__)
        raise InvalidRequestError(f"Unsupported type: '{kind}'")
    seconds = _of_text(value) if isinstance(value, str) else value
    return -1.0 if seconds < 0 else float(min(seconds, LONGEST_S))


def _of_text(text: str) -> float:
    if len(text) > _MOST_CHARS:
        raise InvalidRequestError(f'time: invalid duration "{text[:_MOST_CHARS]}..."')
    if _NUMBER.fullmatch(text):
        return float(text)
    sign, rest = (text[0], text[1:]) if text[:1] in ("-", "+") else ("", text)
    total, position = 0.0, 0
    while position < len(rest) or not rest:
        part = _PART.match(rest, position)
        if not part:
            raise InvalidRequestError(f'time: invalid duration "{text}"')
        total += float(part[1]) * _factor(part[2], text)
        position = part.end()
    return -total if sign == "-" else total


def _factor(unit: str, text: str) -> float:
    if not unit:
        raise InvalidRequestError(f'time: missing unit in duration "{text}"')
    if unit not in _UNITS:
        raise InvalidRequestError(f'time: unknown unit "{unit}" in duration "{text}"')
    return _UNITS[unit]
