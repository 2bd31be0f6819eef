"""Filters from JSON: what is understood, and what is said of what is not."""

import json

import pytest

from embedserve.errors import InvalidRequestError
from embedserve.services.filter_values import MAX_DEPTH
from embedserve.services.filters import MAX_TESTS, parse_filter, parse_filter_text
from embedserve.types import (
    EVERY_DOCUMENT,
    AllOf,
    AnyOf,
    FieldTest,
    MetadataField,
    Not,
    metadata_keys,
    unknown_keys,
)

TEAM = MetadataField("team")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, EVERY_DOCUMENT),
        ({"kinds": ["pdf", "html"]}, FieldTest("kind", "in", ("pdf", "html"))),
        ({"paths": ["a/*"]}, FieldTest("path", "glob", ("a/*",))),
        ({"ids": [3, "4"]}, FieldTest("id", "in", (3, 4))),
        ({"source": "url"}, FieldTest("source", "in", ("url",))),
        ({"source": ["url", "folder"]}, FieldTest("source", "in", ("url", "folder"))),
        ({"metadata": {"team": "a"}}, FieldTest(TEAM, "in", ("a",))),
        ({"metadata": {"team": {"ne": None}}}, Not(FieldTest(TEAM, "in", (None,)))),
        ({"metadata": {"team": {"nin": [1, True]}}}, Not(FieldTest(TEAM, "in", (1, True)))),
        ({"metadata": {"team": {"exists": False}}}, Not(FieldTest(TEAM, "exists"))),
        ({"metadata": {"team": {"contains": "x"}}}, FieldTest(TEAM, "contains", ("x",))),
        (
            {"size_bytes": {"gt": 1, "lte": 2.5}},
            AllOf((FieldTest("size_bytes", "gt", (1,)), FieldTest("size_bytes", "lte", (2.5,)))),
        ),
        (
            {"indexed_at": {"gte": "2026-01-31T01:00:00+01:00"}},
            FieldTest("indexed_at", "gte", ("2026-01-31T00:00:00.000Z",)),
        ),
        ({"modified_at": {"lt": "1970-01-02"}}, FieldTest("modified_at", "lt", (86_400 * 10**9,))),
        (
            {"or": [{"kinds": ["pdf"]}, {"not": {"title": {"eq": "T"}}}]},
            AnyOf((FieldTest("kind", "in", ("pdf",)), Not(FieldTest("title", "in", ("T",))))),
        ),
    ],
)
def test_filters_are_read_into_a_normal_form(given: object, expected: object) -> None:
    assert parse_filter(given) == expected
    assert parse_filter_text(json.dumps(given)) == expected


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "`filter` must be an object of `paths`"),
        ({"path": "*"}, "`filter.path` is not known here; known are `paths`, `ids`"),
        ({"or": []}, "`filter.or` must be a list of 1 to"),
        ({"or": [{}]}, "`filter.or.0` must be an object"),
        ({"not": {}}, "`filter.not` must be an object"),
        ({"paths": []}, "`filter.paths` must be a list of 1 to 1000"),
        ({"paths": ["*" * 9]}, "`filter.paths.0` has more than 8 wildcards"),
        ({"paths": [""]}, "`filter.paths.0` is empty"),
        ({"ids": [True]}, "`filter.ids.0` must be the id of a document"),
        ({"ids": [2**63]}, "`filter.ids.0` must be the id"),
        ({"ids": ["9" * 5000]}, "`filter.ids.0` must be the id"),
        ({"source": "web"}, "must be one of `folder`, `upload`, `url`"),
        ({"metadata": {}}, "`filter.metadata` must be an object of metadata keys"),
        ({"metadata": {"team": ["a"]}}, "`filter.metadata.team` must be no list"),
        ({"metadata": {"team": {"like": "a"}}}, "known are `eq`, `ne`, `in`"),
        ({"metadata": {"team": {"gt": True}}}, "`filter.metadata.team.gt` compares with a number"),
        ({"metadata": {"team": {"eq": {"a": 1}}}}, "must be a string, a number, true"),
        ({"metadata": {"team": {"exists": 1}}}, "`filter.metadata.team.exists` must be true"),
        ({"metadata": {"team": float("nan")}}, "too large a number"),
        ({"metadata": {"team": 10**400}}, "too large a number"),
        ({"metadata": {"team": "a\0"}}, "holds a NUL"),
        ({"metadata": {"\ud800": 1}}, r"`filter.metadata.\ud800` holds a NUL or half"),
        ({"title": {"eq": "x" * 1001}}, "has 1001 characters; at most 1000"),
        ({"title": {"exists": True}}, "`filter.title.exists` is not known here"),
        ({"size_bytes": {"gt": "1"}}, "`filter.size_bytes.gt` must be a number"),
        ({"indexed_at": {"gt": "soon"}}, "must be a date such as 2026-01-31"),
        ({"indexed_at": {"gt": "0001-01-01T00:00:00+23:00"}}, "must be a date"),
        ({"kinds": ["pdf"] * 1001}, "must be a list of 1 to 1000 values"),
    ],
)
def test_errors_name_the_place_and_what_is_allowed(given: object, told: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_filter(given)
    assert told in caught.value.message


def test_depth_and_number_of_conditions_are_bounded() -> None:
    deep: object = {"kinds": ["pdf"]}
    for _ in range(MAX_DEPTH):
        deep = {"not": deep}
    parse_filter(deep)
    with pytest.raises(InvalidRequestError, match="nested at most 8 deep"):
        parse_filter({"and": [deep]})
    many = {"and": [{"kinds": ["pdf"]}] * MAX_TESTS}
    parse_filter(many)
    with pytest.raises(InvalidRequestError, match="has 101 conditions"):
        parse_filter({**many, "source": "url"})
    for text in ("{", "[" * 100_000, "nul"):
        with pytest.raises(InvalidRequestError, match="valid JSON"):
            parse_filter_text(text)


def test_fields_that_no_document_has_are_named() -> None:
    wanted = parse_filter(
        {"kinds": ["pdf"], "metadata": {"a": 1}, "or": [{"metadata": {"b": 1}}, {"not": {
            "metadata": {"c": {"exists": True}}}}]}
    )  # fmt: skip
    assert metadata_keys(wanted) == {"a", "b", "c"}
    assert unknown_keys(wanted, {"b", "x"}) == ("a", "c")
