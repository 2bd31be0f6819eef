"""Filters as SQL: the same answers as a plain evaluation, whatever is in filter and documents."""

import fnmatch
import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from embedserve.services.filters import parse_filter
from embedserve.store.filter_sql import condition_of, metadata_keys_of
from embedserve.types import AllOf, AnyOf, FieldTest, Filter, MetadataField, Not, Scalar

COLUMNS = ("id", "path", "kind", "source", "title", "size_bytes", "mtime_ns", "indexed_at")
TABLE = f"CREATE TABLE d (index_id INTEGER, {', '.join(COLUMNS)}, metadata)"
FIELDS = {"modified_at": "mtime_ns"}

KEYS = st.sampled_from(
    ["a", "A", "", "a.b", '"', "a'b", "$", "$.a", "é", "\\", "😀", "key", "'); DROP TABLE d; --"]
)
# Few values, so that they meet; floats that every decimal reader reads alike.
SCALARS: st.SearchStrategy[Scalar] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1]),
    st.integers(-12, 12).map(lambda n: n / 4),
    st.sampled_from(
        ["", "a", "ab", "B", "1", "true", "null", "é", "😀", "\\n", '"', "' OR 1=1 --", "%"]
    ),
)
METADATA = st.dictionaries(KEYS, SCALARS | st.lists(SCALARS, max_size=3), max_size=4)
TIMES = st.sampled_from(["2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00.001Z"])


@dataclass(frozen=True)
class Document:
    row: dict[str, Any]
    metadata: dict[str, Any]


DOCUMENTS = st.builds(
    Document,
    st.fixed_dictionaries(
        {
            "id": st.none() | st.integers(1, 4),
            "path": st.sampled_from(["a/b.md", "a/c/d.md", "A.md", "é*?.md", "x'y"]),
            "kind": st.sampled_from(["", "pdf", "html"]),
            "source": st.sampled_from(["folder", "upload", "url"]),
            "title": st.sampled_from(["", "Guide", "guide", "A Guide"]),
            "size_bytes": st.integers(0, 4),
            "mtime_ns": st.sampled_from([0, 1, 86_400 * 10**9]),
            "indexed_at": TIMES,
        }
    ),
    METADATA,
)

ORDERED = st.sampled_from(["gt", "gte", "lt", "lte"])
COMPARABLE = SCALARS.filter(lambda value: value is not None and not isinstance(value, bool))
GLOBS = st.sampled_from(["*", "a*", "*b", "?", "[aB]*", "G*", "[*]"])
METADATA_TESTS = st.one_of(
    SCALARS,
    st.dictionaries(st.sampled_from(["eq", "ne", "contains"]), SCALARS, min_size=1),
    st.dictionaries(ORDERED, COMPARABLE, min_size=1),
    st.dictionaries(
        st.sampled_from(["in", "nin"]), st.lists(SCALARS, min_size=1, max_size=3), min_size=1
    ),
    st.fixed_dictionaries({"exists": st.booleans()}),
    st.fixed_dictionaries({"glob": GLOBS}),
)
TEXTS = st.sampled_from(["", "Guide", "guide", "G", "A Guide"])


def some(*values: str | int) -> st.SearchStrategy[list[str | int]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2)


def either(operators: st.SearchStrategy[str], values: st.SearchStrategy[Any]) -> Any:  # noqa: ANN401
    return st.dictionaries(operators, values, min_size=1)


DAYS = st.sampled_from(["1970-01-01", "1970-01-02"])
CONDITIONS: dict[str, st.SearchStrategy[Any]] = {
    "metadata": st.dictionaries(KEYS, METADATA_TESTS, min_size=1, max_size=2),
    "paths": some("*", "a/*", "*.md", "?.md", "[aA]*"),
    "ids": some(1, 2, 3, 4),
    "kinds": some("pdf", "html", "x"),
    "source": st.sampled_from(["folder", "url"]),
    "title": either(st.sampled_from(["eq", "ne", "contains", "gt", "lte"]), TEXTS)
    | st.fixed_dictionaries({"glob": GLOBS}),
    "size_bytes": either(ORDERED | st.just("ne"), st.integers(0, 4)),
    "indexed_at": either(ORDERED, TIMES),
    "modified_at": either(ORDERED, DAYS),
}
LEAVES = st.one_of([st.fixed_dictionaries({key: one}) for key, one in CONDITIONS.items()])
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"not": inner}),
        either(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=6,
)


def meets(document: Document, wanted: Filter) -> bool:
    """Evaluate a filter plainly, as docs/api.md says it."""
    match wanted:
        case AllOf(parts):
            return all(meets(document, part) for part in parts)
        case AnyOf(parts):
            return any(meets(document, part) for part in parts)
        case Not(part):
            return not meets(document, part)
        case FieldTest(MetadataField(key), operator, values):
            if key not in document.metadata:
                return False
            return operator == "exists" or any(
                OPERATORS[operator](document.metadata[key], value) for value in values
            )
        case FieldTest(field, operator, values):
            found = document.row[FIELDS.get(str(field), str(field))]
            if found is None or (field == "modified_at" and found == 0):
                return False
            return any(OPERATORS[operator](found, value) for value in values)


def kind(value: object) -> str:
    return "number" if type(value) in (int, float) else type(value).__name__


def ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda found, value: kind(found) == kind(value) and compare(found, value)


def contains(found: Any, value: Scalar) -> bool:  # noqa: ANN401  whatever metadata holds
    if isinstance(found, list):
        return any(OPERATORS["in"](item, value) for item in found)
    return isinstance(found, str) and isinstance(value, str) and value in found


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "in": ordered(lambda found, value: found == value),
    "gt": ordered(lambda found, value: found > value),
    "gte": ordered(lambda found, value: found >= value),
    "lt": ordered(lambda found, value: found < value),
    "lte": ordered(lambda found, value: found <= value),
    "contains": contains,
    "glob": lambda found, value: isinstance(found, str) and fnmatch.fnmatchcase(found, value),
}


def rows_of(documents: list[Document]) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute(TABLE)
    marks = ", ".join("?" * (len(COLUMNS) + 2))
    for document in documents:
        values = [document.row[column] for column in COLUMNS]
        metadata = json.dumps(document.metadata, ensure_ascii=False)
        connection.execute(f"INSERT INTO d VALUES ({marks})", (1, *values, metadata))
    return connection


@settings(max_examples=200, deadline=None)
@given(st.lists(DOCUMENTS, min_size=1, max_size=6), FILTERS)
def test_sql_agrees_with_a_plain_evaluation(documents: list[Document], given: object) -> None:
    wanted = parse_filter(given)
    condition = condition_of(wanted, "d")
    connection = rows_of(documents)
    sql = f"SELECT rowid, {condition.sql} FROM d ORDER BY rowid"
    found = [row[1] for row in connection.execute(sql, condition.values)]
    connection.close()
    assert found == [int(meets(document, wanted)) for document in documents], condition.sql


@pytest.mark.parametrize(
    "hostile",
    [
        "'; DROP TABLE d; --",
        "' OR '1'='1",
        '") OR 1=1 --',
        "?",
        ":a",
        "x' UNION SELECT 1 --",
        "\\'",
    ],
)
def test_no_word_of_a_filter_gets_into_the_sql(hostile: str) -> None:
    row = {"id": 1, "path": "p", "kind": "k", "source": "url", "title": "t", "size_bytes": 1}
    document = Document({**row, "mtime_ns": 1, "indexed_at": "2026"}, {"key": "value"})
    connection = rows_of([document])
    for asked in (
        {"metadata": {hostile: "value"}},
        {"metadata": {"key": hostile}},
        {"metadata": {"key": {"contains": hostile}}},
        {"paths": [hostile.replace("?", "") or "x"]},
        {"kinds": [hostile]},
        {"title": {"eq": hostile}},
    ):  # fmt: skip
        condition = condition_of(parse_filter(asked), "d")
        assert hostile == "?" or hostile not in condition.sql
        sql = f"SELECT id FROM d WHERE {condition.sql}"
        assert connection.execute(sql, condition.values).fetchall() == []
    assert connection.execute("SELECT count(*) FROM d").fetchone() == (1,)
    connection.close()


def test_metadata_keys_of_documents_and_uploads_are_known() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE documents (index_id, metadata)")
    connection.execute("CREATE TABLE uploads (index_id, metadata)")
    for table, index, metadata in [
        ("documents", 1, {"a": 1, '"b': [1]}),
        ("documents", 1, {}),
        ("uploads", 1, {"c": None}),
        ("documents", 2, {"d": 1}),
    ]:
        connection.execute(f"INSERT INTO {table} VALUES (?, ?)", (index, json.dumps(metadata)))
    assert metadata_keys_of(connection, 1) == {"a", '"b', "c"}
    connection.close()
