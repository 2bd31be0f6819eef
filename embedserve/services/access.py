"""Which documents of a protected index a user may see: claims of a token to a filter. Pure."""

from collections.abc import Mapping

from embedserve.services.definitions import Access, AccessRule
from embedserve.services.filter_values import MAX_CHARS
from embedserve.services.filters import parse_filter
from embedserve.types import AllOf, AnyOf, FieldTest, Filter, MetadataField, Scalar

NO_DOCUMENT = AnyOf()
MAX_CLAIM_VALUES = 1000
"""Of one claim that is a list; a longer one matches nothing, which its owner notices."""


def visible_to(claims: Mapping[str, object], access: Access) -> Filter:
    """Return the documents that a user with these claims may see, and everybody may.

    A rule whose claim is missing, empty or no plain value is met by no document.
    """
    rules = tuple(_documents(rule, claims.get(rule.claim)) for rule in access.rules)
    own: Filter = AnyOf(rules)
    if access.match == "all" and rules:
        own = AllOf(rules)
    return own if access.public is None else AnyOf((own, parse_filter(access.public)))


def _documents(rule: AccessRule, claimed: object) -> Filter:
    """Return the documents whose field has one of the claimed values, by itself or in a list."""
    listed = claimed if isinstance(claimed, list) else [claimed]
    values = tuple(plain for value in listed if (plain := _plain(value)) is not None)
    if not values or len(listed) > MAX_CLAIM_VALUES:
        return NO_DOCUMENT
    return FieldTest(MetadataField(rule.field), "has", values)


def _plain(value: object) -> Scalar:
    """Return a value that names somebody, None for others: "" and objects name nobody."""
    if isinstance(value, str):
        is_text = "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)
        return value if 0 < len(value) <= MAX_CHARS and is_text else None
    is_number = isinstance(value, int) and abs(value) < 2**63
    return value if isinstance(value, int) and is_number else None
