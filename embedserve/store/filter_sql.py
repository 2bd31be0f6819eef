"""Filters over documents as conditions of SQL: the one translator.

Words and values of a filter are bound, never written into the SQL. Metadata is looked into with
json_each: the paths of json_extract cannot name every key. Values go in as JSON too, so that both
sides of a comparison were read by the same parser.
"""

import json
import sqlite3
from collections.abc import Sequence

from embedserve.types import (
    AllOf,
    AnyOf,
    Column,
    FieldTest,
    Filter,
    MetadataField,
    Not,
    Operator,
    Scalar,
    SqlCondition,
)

Value = str | int | float

_COMPARE = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

_NUMBER = "('integer', 'real')"
# JSON's true is 1 to SQLite, and the type tells them apart; 1 and 1.0 are one number.
_ALIKE = (
    "({left}.type = wanted.type OR"
    f" {{left}}.type IN {_NUMBER} AND wanted.type IN {_NUMBER})"
)  # fmt: skip
_EQUAL = f"({_ALIKE} AND {{left}}.atom IS wanted.atom)"
_FIELD_EQUAL = _EQUAL.format(left="field")
_ITEM_EQUAL = _EQUAL.format(left="item")
# What is no list has no items, whichever of the conditions SQLite looks at first.
_IN_LIST = (
    "EXISTS (SELECT 1 FROM"
    " json_each(CASE field.type WHEN 'array' THEN field.value ELSE '[]' END) item"
    f" WHERE {_ITEM_EQUAL})"
)
_CONTAINS = (
    "(field.type = 'text' AND wanted.type = 'text' AND instr(field.atom, wanted.atom) > 0"
    f" OR {_IN_LIST})"
)
_HAS = f"({_FIELD_EQUAL} OR {_IN_LIST})"
# An upload that was not ingested yet has no id, and one that replaces a document has a job.
_STATUS = """
CASE WHEN EXISTS (SELECT 1 FROM uploads sent WHERE sent.index_id = {table}.index_id
  AND sent.path = {table}.path AND (sent.job_id IS NOT NULL OR {table}.id IS NULL)) THEN 'pending'
WHEN {table}.problem_code IS NOT NULL THEN 'unreadable' ELSE 'indexed' END
"""
# Every column that may be null is given a value that meets no comparison.
_COLUMNS: dict[Column, str] = {
    "id": "coalesce({table}.id, -1)",
    "path": "{table}.path",
    "kind": "{table}.kind",
    "source": "{table}.source",
    "status": _STATUS,
    "title": "{table}.title",
    "size_bytes": "{table}.size_bytes",
    "indexed_at": "{table}.indexed_at",
    "modified_at": "{table}.mtime_ns",
}


def condition_of(wanted: Filter, table: str) -> SqlCondition:
    """Translate a filter; `table` names what has the columns of `documents` that it asks about.

    It has at least `id` (null where a document has none yet), `index_id`, `path`, `kind`, `source`,
    `title`, `size_bytes`, `mtime_ns`, `indexed_at`, `metadata` and `problem_code`.
    """
    match wanted:
        case AllOf(parts):
            return _joined(parts, table, word=" AND ", of_none="1")
        case AnyOf(parts):
            return _joined(parts, table, word=" OR ", of_none="0")
        case Not(part):
            inner = condition_of(part, table)
            return SqlCondition(f"NOT {inner.sql}", inner.values)
        case FieldTest(MetadataField(key), operator, values):
            return _of_metadata(key, operator, _json(values), table)
        case FieldTest(column, operator, values):
            assert not isinstance(column, MetadataField)  # the case above; mypy cannot tell
            return _of_column(column, operator, _json(values), table)


def metadata_keys_of(connection: sqlite3.Connection, index_id: int) -> frozenset[str]:
    """Return every metadata key that a document or an upload of an index has."""
    rows = connection.execute(
        "SELECT DISTINCT field.key FROM documents d, json_each(d.metadata) field"
        " WHERE d.index_id = :index AND d.metadata <> '{}'"
        " UNION SELECT field.key FROM uploads u, json_each(u.metadata) field"
        " WHERE u.index_id = :index AND u.metadata <> '{}'",
        {"index": index_id},
    )
    return frozenset(row[0] for row in rows)


def _joined(parts: Sequence[Filter], table: str, *, word: str, of_none: str) -> SqlCondition:
    found = [condition_of(part, table) for part in parts]
    sql = word.join(one.sql for one in found)
    values = tuple(value for one in found for value in one.values)
    return SqlCondition(f"({sql or of_none})", values)


def _of_metadata(key: str, operator: Operator, values: str, table: str) -> SqlCondition:
    each = f"json_each({table}.metadata) field"
    if operator == "exists":
        return SqlCondition(f"EXISTS (SELECT 1 FROM {each} WHERE field.key = ?)", (key,))
    if operator == "in":
        meets = _FIELD_EQUAL
    elif operator == "has":
        meets = _HAS
    elif operator == "contains":
        meets = _CONTAINS
    elif operator == "glob":
        meets = "(field.type = 'text' AND field.atom GLOB wanted.atom)"
    else:
        sign = _COMPARE[operator]
        meets = f"({_ALIKE.format(left='field')} AND field.atom {sign} wanted.atom)"
    sql = f"EXISTS (SELECT 1 FROM {each}, json_each(?) wanted WHERE field.key = ? AND {meets})"
    return SqlCondition(sql, (values, key))


def _of_column(column: Column, operator: Operator, values: str, table: str) -> SqlCondition:
    field = _COLUMNS[column].format(table=table)
    if operator == "in":
        return SqlCondition(f"{field} IN (SELECT value FROM json_each(?))", (values,))
    if operator == "glob":
        meets = f"{field} GLOB wanted.value"
    elif operator == "contains":
        meets = f"instr({field}, wanted.value) > 0"
    else:
        meets = f"{field} {_COMPARE[operator]} wanted.value"
    if column == "modified_at":
        meets += f" AND {field} > 0"  # 0: what was sent or fetched has no such time
    return SqlCondition(f"EXISTS (SELECT 1 FROM json_each(?) wanted WHERE {meets})", (values,))


def _json(values: Sequence[Scalar]) -> str:
    return json.dumps(values, ensure_ascii=False)
