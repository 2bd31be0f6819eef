"""What may stand in a filter as a value, by the field that it is compared with."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import get_args

from embedserve.errors import InvalidRequestError
from embedserve.types import DocumentStatus, Scalar, SourceKind

MAX_DEPTH = 8
MAX_CHARS = 1000
MAX_WILDCARDS = 8
"""In one glob: each may cost a pass over the name."""

_INTEGERS = range(-(2**63), 2**63)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Place:
    """Where in a filter something stands, for messages."""

    name: str = "filter"
    depth: int = 0

    def at(self, key: object) -> "Place":
        """Go down to a key or a position."""
        return Place(f"{self.name}.{str(key)[:100]}", self.depth)

    def inside(self, key: object = None) -> "Place":
        """Go down into another filter; raise InvalidRequestError beyond MAX_DEPTH."""
        place = self if key is None else self.at(key)
        if self.depth == MAX_DEPTH:
            raise place.error(f"is too deep; filters are nested at most {MAX_DEPTH} deep")
        return Place(place.name, self.depth + 1)

    def error(self, what: str) -> InvalidRequestError:
        """Make the error that says what is allowed here."""
        shown = self.name.encode("ascii", "backslashreplace").decode()
        return InvalidRequestError(f"`{shown}` {what}.", field="filter")


@dataclass(frozen=True)
class FieldKind:
    """What may be asked of a field."""

    operators: tuple[str, ...]
    check: Callable[[object, Place], Scalar]


def check_text(value: object, place: Place) -> str:
    """Return a string that can stand in a catalog."""
    if not isinstance(value, str):
        raise place.error("must be a string")
    if len(value) > MAX_CHARS:
        raise place.error(f"has {len(value)} characters; at most {MAX_CHARS} are allowed")
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise place.error("holds a NUL or half a surrogate pair, which no document has")
    return value


def check_key(value: object, place: Place) -> str:
    """Return a metadata key."""
    return check_text(value, place.at(value))


def check_number(value: object, place: Place) -> int | float:
    """Return a finite number; integers have 64 bits."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise place.error("must be a number")
    is_known = value in _INTEGERS if isinstance(value, int) else math.isfinite(value)
    if not is_known:
        raise place.error("is too large a number; 64 bits are allowed")
    return value


def check_scalar(value: object, place: Place) -> Scalar:
    """Return what metadata may hold."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return check_text(value, place)
    if isinstance(value, int | float):
        return check_number(value, place)
    raise place.error("must be a string, a number, true, false or null")


def check_glob(value: object, place: Place) -> str:
    """Return a glob of a path."""
    glob = check_text(value, place)
    if not glob:
        raise place.error("is empty; `*` stands for every path")
    if sum(map(glob.count, "*?[")) > MAX_WILDCARDS:
        raise place.error(f"has more than {MAX_WILDCARDS} wildcards; use fewer")
    return glob


def check_id(value: object, place: Place) -> int:
    """Return the id of a document, which hits have as a string."""
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value[:20])
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**63:
        raise place.error("must be the id of a document, such as 3")
    return value


def check_source(value: object, place: Place) -> str:
    """Return a kind of source."""
    return _one_of(value, get_args(SourceKind), place)


def check_status(value: object, place: Place) -> str:
    """Return how a document stands."""
    return _one_of(value, get_args(DocumentStatus), place)


def _one_of(value: object, known: tuple[str, ...], place: Place) -> str:
    if value not in known:
        raise place.error(f"must be one of {', '.join(f'`{one}`' for one in known)}")
    return str(value)


def check_date(value: object, place: Place) -> str:
    """Return a date as the catalog writes it: RFC 3339 in UTC, to the millisecond."""
    return _utc(value, place).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def check_date_ns(value: object, place: Place) -> int:
    """Return a date as nanoseconds since 1970."""
    return (_utc(value, place) - _EPOCH) // timedelta(microseconds=1) * 1000


def _utc(value: object, place: Place) -> datetime:
    """Read a date or a time; UTC where it does not say."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
        if found:
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise place.error("must be a date such as 2026-01-31 or 2026-01-31T08:00:00Z")


_COMPARE = ("gt", "gte", "lt", "lte")
_EQUAL = ("eq", "ne", "in", "nin")

METADATA = FieldKind((*_EQUAL, *_COMPARE, "contains", "glob", "exists"), check_scalar)
TEXT = FieldKind((*_EQUAL, *_COMPARE, "contains", "glob"), check_text)
NUMBER = FieldKind((*_EQUAL, *_COMPARE), check_number)
DATE = FieldKind(_COMPARE, check_date)
MODIFIED = FieldKind(_COMPARE, check_date_ns)
