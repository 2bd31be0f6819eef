"""Dify's metadata conditions as filters over documents, put to real documents' metadata."""

import json
import sqlite3
from typing import Any

import pytest

from embedserve.api.dify import Condition, MetadataCondition, filter_of
from embedserve.errors import InvalidRequestError
from embedserve.store.filter_sql import condition_of

DOCUMENTS: dict[str, dict[str, Any]] = {
    "plan": {"team": "sales", "year": 2024, "tags": ["draft", "q3"], "due": "2026-01-31"},
    "note": {"team": "Sales & more", "year": "2023", "due": 1_700_000_000},
    "odd*": {"team": "", "year": None, "tags": "a*b"},
    "bare": {},
}


def met(*conditions: tuple[Any, ...], word: str = "and") -> set[str]:
    """Return the titles of the documents that meet Dify's conditions."""
    named = [
        Condition(name=name, comparison_operator=operator, value=value[0] if value else None)
        for name, operator, *value in conditions
    ]
    wanted = filter_of(MetadataCondition(logical_operator=word, conditions=named))  # type: ignore[arg-type]
    condition = condition_of(wanted, "d")
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE d (title, metadata)")
    rows = [(title, json.dumps(metadata)) for title, metadata in DOCUMENTS.items()]
    connection.executemany("INSERT INTO d VALUES (?, ?)", rows)
    sql = f"SELECT title FROM d WHERE {condition.sql}"
    found = {row[0] for row in connection.execute(sql, condition.values)}
    connection.close()
    return found


@pytest.mark.parametrize(
    ("condition", "titles"),
    [
        (("team", "contains", "ales"), {"plan", "note"}),
        (("tags", "contains", "draft"), {"plan"}),
        (("team", "not contains", "ales"), {"odd*", "bare"}),
        (("team", "start with", "sa"), {"plan"}),
        (("team", "end with", "more"), {"note"}),
        (("tags", "start with", "a*"), {"odd*"}),
        (("tags", "start with", "?"), set()),
        (("team", "is", "sales"), {"plan"}),
        (("team", "is not", "sales"), {"note", "odd*", "bare"}),
        (("year", "is", "2024"), {"plan"}),
        (("year", "is", "2023"), {"note"}),
        (("year", "in", ["2023", "2024"]), {"plan", "note"}),
        (("year", "in", "2023, 2024"), {"plan", "note"}),
        (("team", "not in", ["sales"]), {"note", "odd*", "bare"}),
        (("team", "empty"), {"odd*", "bare"}),
        (("year", "empty"), {"odd*", "bare"}),
        (("team", "not empty"), {"plan", "note"}),
        (("year", "=", "2024"), {"plan"}),
        (("year", "≠", 2024), {"note", "odd*", "bare"}),
        (("year", ">", "2023.5"), {"plan"}),
        (("year", "<", 2025), {"plan"}),
        (("year", "≥", 2024), {"plan"}),
        (("year", "≤", 2023), set()),
        (("due", "before", "2026-02-01"), {"plan"}),
        (("due", "after", "1600000000"), {"note"}),
        (("document_name", "is", "note"), {"note"}),
        (("document_name", "start with", "odd*"), {"odd*"}),
        (("document_name", "not empty"), {"plan", "note", "odd*", "bare"}),
        ((["team", "tags"], "contains", "a"), {"plan", "note", "odd*"}),
    ],
)
def test_each_operator_means_what_dify_says(condition: tuple[Any, ...], titles: set[str]) -> None:
    assert met(condition) == titles


def test_conditions_are_joined_as_asked() -> None:
    both = (("team", "contains", "ales"), ("year", "is", "2024"))
    assert met(*both) == {"plan"}
    assert met(*both, word="or") == {"plan", "note"}
    assert filter_of(None) == filter_of(MetadataCondition(conditions=[]))


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        (("team", "like", "x"), "`comparison_operator` `like` is not known; known are `contains`"),
        (("year", ">", "many"), "`many` is no number"),
        (("year", "=", None), "no number"),
        (([], "is", "x"), "no name"),
        (("team", "contains", "a" * 1001), "1001 characters"),
    ],
)
def test_what_cannot_be_asked_is_told(condition: tuple[Any, ...], told: str) -> None:
    with pytest.raises(InvalidRequestError, match=told):
        met(condition)
