"""Which documents are meant: a tree of tests, checked and in normal form.

`services/filters.py` makes it of JSON, `store/filter_sql.py` makes SQL of it. Every test is true or
false of every document, never unknown, so that `Not` is the exact complement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

Scalar = str | int | float | bool | None
"""What metadata holds, in lists or by itself."""

Column = Literal[
    "id", "path", "kind", "source", "status", "title", "size_bytes", "indexed_at", "modified_at"
]
Comparison = Literal["gt", "gte", "lt", "lte"]
Operator = Literal["in", "has", "glob", "contains", "exists"] | Comparison


@dataclass(frozen=True)
class MetadataField:
    """A key of the JSON object that came with a document."""

    key: str


@dataclass(frozen=True)
class FieldTest:
    """One test of one field; `in`, `has` and `glob` are met by any of the values, others have one.

    `has` is of metadata alone: it is one of the values, or a list that holds one. `exists` has
    none. Values of `indexed_at` are written as the catalog writes them, those of `modified_at` are
    nanoseconds.
    """

    field: Column | MetadataField
    operator: Operator
    values: tuple[Scalar, ...] = ()


@dataclass(frozen=True)
class AllOf:
    """Every part is met; so it is where there is none."""

    parts: tuple[Filter, ...] = ()


@dataclass(frozen=True)
class AnyOf:
    """One part at least is met; none is where there is none."""

    parts: tuple[Filter, ...] = ()


@dataclass(frozen=True)
class Not:
    """The part is not met."""

    part: Filter


Filter = FieldTest | AllOf | AnyOf | Not

EVERY_DOCUMENT = AllOf()


def metadata_keys(wanted: Filter) -> frozenset[str]:
    """Return the metadata keys that a filter asks about."""
    return frozenset(
        test.field.key for test in tests_of(wanted) if isinstance(test.field, MetadataField)
    )


def unknown_keys(wanted: Filter, known: Iterable[str]) -> tuple[str, ...]:
    """Return the metadata keys that a filter asks about and no document has, in order."""
    return tuple(sorted(metadata_keys(wanted).difference(known)))


def tests_of(wanted: Filter) -> Iterator[FieldTest]:
    """Yield every test of a filter."""
    match wanted:
        case FieldTest():
            yield wanted
        case Not(part):
            yield from tests_of(part)
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from tests_of(part)
