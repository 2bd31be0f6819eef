"""Filters over documents, from JSON. The grammar is in docs/api.md; one document of it:

    {"paths": ["notes/*"], "metadata": {"year": {"gte": 2020}}, "not": {"kinds": ["pdf"]}}

An object is met when all of its conditions are. It is checked here, once; what comes out is
`types.Filter`, in which `ne` is the complement of `eq`, and `eq` an `in` of one value.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from embedserve.services.filter_values import (
    DATE,
    METADATA,
    MODIFIED,
    NUMBER,
    TEXT,
    FieldKind,
    Place,
    check_glob,
    check_id,
    check_key,
    check_source,
    check_status,
    check_text,
)
from embedserve.store.catalog import Catalog
from embedserve.types import (
    EVERY_DOCUMENT,
    AllOf,
    AnyOf,
    Column,
    FieldTest,
    Filter,
    MetadataField,
    Not,
    Operator,
    Scalar,
    metadata_keys,
    tests_of,
    unknown_keys,
)

MAX_TESTS = 100
"""Of one filter: every document is put to each."""
MAX_VALUES = 1000
MAX_IDS = 100_000

FILTER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": False,
    "properties": {
        "paths": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        "ids": {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 1}},
        "kinds": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        "source": {"type": ["string", "array"]},
        "status": {"type": ["string", "array"]},
        "title": {"type": "object"},
        "size_bytes": {"type": "object"},
        "indexed_at": {"type": "object"},
        "modified_at": {"type": "object"},
        "metadata": {"type": "object", "minProperties": 1},
        "and": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        "or": {"type": "array", "minItems": 1, "items": {"type": "object"}},
        "not": {"type": "object", "minProperties": 1},
    },
}
"""JSON Schema of a filter's outside; docs/api.md has the whole grammar."""

# What each operator is in the normal form, and whether it is the complement of that.
_EQUAL = {"eq": False, "ne": True}
_AMONG = {"in": False, "nin": True}
_COMPARE: dict[str, Operator] = {"gt": "gt", "gte": "gte", "lt": "lt", "lte": "lte"}

Check = Callable[[object, Place], Scalar]
Condition = Callable[[object, Place], Filter]


def parse_filter(value: object) -> Filter:
    """Check a filter; raise InvalidRequestError that names the place and what is allowed there."""
    place = Place()
    parsed = EVERY_DOCUMENT if value == {} else _object(value, place)
    count = sum(1 for _ in tests_of(parsed))
    if count > MAX_TESTS:
        raise place.error(f"has {count} conditions; at most {MAX_TESTS} are allowed")
    return parsed


def parse_filter_text(text: str) -> Filter:
    """Check a filter that came as JSON text; raise InvalidRequestError."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Place().error(
            'is not valid JSON; send an object such as {"kinds": ["pdf"]}'
        ) from error
    return parse_filter(value)


def unknown_fields(catalog: Catalog, index_id: int, wanted: Filter) -> tuple[str, ...]:
    """Name, in a sentence each, the metadata that a filter asks about and no document has."""
    if not metadata_keys(wanted):
        return ()
    unknown = unknown_keys(wanted, catalog.uploads.metadata_keys(index_id))
    return tuple(f"No document of the index has metadata `{key}`." for key in unknown)


def _object(value: object, place: Place) -> Filter:
    conditions = _mapping(value, place, known=_CONDITIONS)
    return _all([_CONDITIONS[key](one, place.at(key)) for key, one in conditions.items()])


def _filters(value: object, place: Place) -> tuple[Filter, ...]:
    return tuple(
        _object(one, place.inside(number))
        for number, one in enumerate(_list(value, place, limit=MAX_TESTS))
    )


def _and(value: object, place: Place) -> Filter:
    return AllOf(_filters(value, place))


def _or(value: object, place: Place) -> Filter:
    return AnyOf(_filters(value, place))


def _not(value: object, place: Place) -> Filter:
    return Not(_object(value, place.inside()))


def _metadata(value: object, place: Place) -> Filter:
    parts = []
    for key, condition in _mapping(value, place).items():
        field = MetadataField(check_key(key, place))
        if isinstance(condition, Mapping):
            parts.append(_operators(condition, place.at(key), field=field, kind=METADATA))
        elif isinstance(condition, list):
            raise place.at(key).error(
                'must be no list; use {"in": […]} for any of them, {"contains": …} for lists'
            )
        else:
            parts.append(FieldTest(field, "in", (METADATA.check(condition, place.at(key)),)))
    return _all(parts)


def _among(
    value: object, place: Place, *, field: Column, check: Check, operator: Operator = "in"
) -> Filter:
    limit = MAX_IDS if field == "id" else MAX_VALUES
    return FieldTest(field, operator, _values(value, place, check=check, limit=limit))


def _one_or_more(value: object, place: Place, *, field: Column, check: Check) -> Filter:
    listed = value if isinstance(value, list) else [value]
    return _among(listed, place, field=field, check=check)


def _operators(
    value: object, place: Place, *, field: Column | MetadataField, kind: FieldKind
) -> Filter:
    tests = _mapping(value, place, known=kind.operators)
    return _all([_test(field, key, one, place.at(key), kind) for key, one in tests.items()])


def _test(
    field: Column | MetadataField, operator: str, value: object, place: Place, kind: FieldKind
) -> Filter:
    if operator in _EQUAL:
        same = FieldTest(field, "in", (kind.check(value, place),))
        return Not(same) if _EQUAL[operator] else same
    if operator in _AMONG:
        among = FieldTest(field, "in", _values(value, place, check=kind.check, limit=MAX_VALUES))
        return Not(among) if _AMONG[operator] else among
    if operator == "exists":
        if not isinstance(value, bool):
            raise place.error("must be true or false")
        there = FieldTest(field, "exists")
        return there if value else Not(there)
    if operator in _COMPARE:
        if value is None or isinstance(value, bool):
            raise place.error("compares with a number or a string")
        return FieldTest(field, _COMPARE[operator], (kind.check(value, place),))
    if operator == "glob":
        return FieldTest(field, "glob", (check_glob(value, place),))
    return FieldTest(field, "contains", (kind.check(value, place),))


def _all(parts: Sequence[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else AllOf(tuple(parts))


def _values(value: object, place: Place, *, check: Check, limit: int) -> tuple[Scalar, ...]:
    return tuple(
        check(one, place.at(number)) for number, one in enumerate(_list(value, place, limit=limit))
    )


def _list(value: object, place: Place, *, limit: int) -> Sequence[object]:
    if not isinstance(value, list) or not 1 <= len(value) <= limit:
        raise place.error(f"must be a list of 1 to {limit} values")
    return value


def _mapping(
    value: object, place: Place, *, known: Mapping[str, object] | Sequence[str] = ()
) -> Mapping[str, object]:
    what = f"{', '.join(f'`{key}`' for key in known)}" if known else "metadata keys"
    if not isinstance(value, Mapping) or not value:
        raise place.error(f"must be an object of {what}, and not empty")
    unknown = next((key for key in value if known and key not in known), None)
    if unknown is not None:
        raise place.at(unknown).error(f"is not known here; known are {what}")
    return value


_CONDITIONS: dict[str, Condition] = {
    "paths": partial(_among, field="path", check=check_glob, operator="glob"),
    "ids": partial(_among, field="id", check=check_id),
    "kinds": partial(_among, field="kind", check=check_text),
    "source": partial(_one_or_more, field="source", check=check_source),
    "status": partial(_one_or_more, field="status", check=check_status),
    "title": partial(_operators, field="title", kind=TEXT),
    "size_bytes": partial(_operators, field="size_bytes", kind=NUMBER),
    "indexed_at": partial(_operators, field="indexed_at", kind=DATE),
    "modified_at": partial(_operators, field="modified_at", kind=MODIFIED),
    "metadata": _metadata,
    "and": _and,
    "or": _or,
    "not": _not,
}
