"""Filters over documents as SQL. The one translator: another grammar is another function here."""

import json
from dataclasses import dataclass

from embedserve.types import DocumentFilter, DocumentStatus

Value = str | int | float

STATUSES: dict[DocumentStatus, str] = {
    "pending": "listed.is_pending",
    "unreadable": "NOT listed.is_pending AND listed.problem_code IS NOT NULL",
    "indexed": "NOT listed.is_pending AND listed.problem_code IS NULL",
}


@dataclass(frozen=True)
class Condition:
    """An expression over the columns of `listed` (store/uploads.py), with its values."""

    sql: str
    values: tuple[Value, ...]


def condition_of(wanted: DocumentFilter) -> Condition:
    """Translate a filter; one without conditions is true of every document."""
    parts: list[str] = []
    values: list[Value] = []
    if wanted.paths:
        parts.append("EXISTS (SELECT 1 FROM json_each(?) one WHERE listed.path GLOB one.value)")
        values.append(json.dumps(wanted.paths))
    if wanted.ids:
        parts.append("listed.id IN (SELECT value FROM json_each(?))")
        values.append(json.dumps(wanted.ids))
    if wanted.source:
        parts.append("listed.source = ?")
        values.append(wanted.source)
    if wanted.status:
        parts.append(STATUSES[wanted.status])
    for key, value in wanted.metadata:
        # JSON's true is 1 to SQLite; the type tells them apart. 1 and 1.0 are one number.
        kinds = "'true', 'false'" if isinstance(value, bool) else "'text', 'integer', 'real'"
        parts.append(
            "EXISTS (SELECT 1 FROM json_each(listed.metadata) field WHERE field.key = ?"
            f" AND field.atom = ? AND field.type IN ({kinds}))"
        )
        values += [key, value]
    return Condition(" AND ".join(parts) or "1", tuple(values))
