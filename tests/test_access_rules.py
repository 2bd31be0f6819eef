"""Access rules: claims of a token to a filter, what a definition may say, and who a caller is."""

import json
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing

import jwt
import pytest
from starlette.types import Receive, Scope, Send

from embedserve.api.keys import KeyGuard, parse_keys
from embedserve.api.viewers import UserTokens, ViewerGuard, ViewerSources
from embedserve.errors import DefinitionError
from embedserve.services.access import visible_to
from embedserve.services.definitions import Access, parse_definition
from embedserve.services.viewing import NOBODY, OWNER, Viewer, acting_as, viewer
from embedserve.store.filter_sql import condition_of
from tests.asgi import Answer, called

SECRET = "forwarded-0123456789-0123456789-0123456789-0123456789-0123456789-abcdef"
HEADER = "X-OpenWebUI-User-Jwt"
READER, WRITER, ADMIN = "reader-0123456789", "writer-0123456789", "admin-01234567890"


def access(*rules: tuple[str, str], **others: object) -> Access:
    value = {"rules": [{"claim": claim, "field": field} for claim, field in rules], **others}
    return parse_definition({"access": value}, origin="A test").access or pytest.fail("no rules")


def sees(rules: Access, claims: Mapping[str, object], metadata: Mapping[str, object]) -> bool:
    condition = condition_of(visible_to(claims, rules), "d")
    with closing(sqlite3.connect(":memory:")) as connection:
        found = connection.execute(
            f"SELECT {condition.sql} FROM (SELECT ? AS metadata) d",
            (*condition.values, json.dumps(metadata)),
        ).fetchone()
    return bool(found[0])


@pytest.mark.parametrize(
    ("claimed", "stored", "is_seen"),
    [
        ("ann", "ann", True),
        ("ann", ["bob", "ann"], True),
        (["staff", "ann"], "ann", True),
        (["staff", "board"], ["press", "board"], True),
        (7, 7, True),
        (7, 7.0, True),
        # A text is not its part, not another case of it, not a number that is written alike.
        ("ann", "hannah", False),
        ("hannah", "ann", False),
        ("ann", "Ann", False),
        ("7", 7, False),
        (True, 1, False),
        ("ann", ["hannah"], False),
        ("ann", {"ann": "ann"}, False),
        ("ann", None, False),
        # What names nobody is met by nothing, whatever a document holds.
        ("", "", False),
        (None, None, False),
        ([], [], False),
        ([None, ""], [None, ""], False),
        ({"a": 1}, {"a": 1}, False),
        ([["ann"]], [["ann"]], False),
        ("%", "ann", False),
        ("*", "ann", False),
        ("a\0b", "a", False),
        ("\ud800", "a", False),
        (2**63, 2**63, False),
        (1.5, 1.5, False),
        (["ann"] * 1001, "ann", False),
        ("a" * 1001, "a" * 1001, False),
    ],
)
def test_a_claim_is_compared_with_the_field(claimed: object, stored: object, is_seen: bool) -> None:
    rules = access(("who", "owner"))
    assert sees(rules, {"who": claimed}, {"owner": stored}) is is_seen
    assert not sees(rules, {}, {"owner": stored})
    assert not sees(rules, {"other": claimed}, {"owner": stored})
    assert not sees(rules, {"who": claimed}, {})


def test_one_rule_is_enough_or_all_are_needed() -> None:
    pairs = (("email", "owner"), ("groups", "groups"))
    claims = {"email": "ann@x.example", "groups": ["staff"]}
    own, shared = {"owner": "ann@x.example"}, {"groups": ["staff", "board"]}
    assert sees(access(*pairs), claims, own)
    assert sees(access(*pairs), claims, shared)
    strict = access(*pairs, match="all")
    assert not sees(strict, claims, own)
    assert not sees(strict, claims, shared)
    assert sees(strict, claims, {**own, **shared})
    assert not sees(strict, {"email": "ann@x.example"}, {**own, **shared})


@pytest.mark.parametrize("match", ["any", "all"])
def test_what_is_public_is_seen_by_everybody(match: str) -> None:
    rules = access(("email", "owner"), match=match, public={"metadata": {"visibility": "public"}})
    assert sees(rules, {}, {"visibility": "public"})
    assert not sees(rules, {}, {"visibility": "private", "owner": ""})
    only = access(public={"metadata": {"visibility": "public"}}, match=match)
    assert not sees(only, {"email": "ann"}, {"owner": "ann"})


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({}, "nobody could see anything"),
        ({"public": {}}, "nobody could see anything"),
        ({"rules": [{"claim": "a", "field": "b"}], "public": {}}, "leave `access` out"),
        ({"public": {"metdata": {}}}, "metdata"),
        ({"rules": [{"claim": "a", "field": "b", "clam": "c"}]}, "Did you mean `claim`"),
        ({"rules": [{"claim": "", "field": "b"}]}, "access.rules.0.claim"),
        ({"rules": [{"claim": "a", "field": "b"}], "match": "some"}, "access.match"),
        ({"rule": []}, "Did you mean `rules`"),
    ],
)
def test_a_definition_that_does_not_hold_says_why(value: object, told: str) -> None:
    with pytest.raises(DefinitionError, match="The definition") as raised:
        parse_definition({"access": value}, origin="The definition")
    assert told in raised.value.message


def test_rules_are_kept_as_they_were_written() -> None:
    rules = access(("email", "owner"), public={"paths": ["public/*"]})
    definition = parse_definition({"access": json.loads(rules.model_dump_json())}, origin="-")
    assert definition.access == rules


# -- who a caller is --------------------------------------------------------------------------


def token(secret: str = SECRET, algorithm: str = "HS256", **claims: object) -> str:
    told = {"sub": "1", "email": "ann@x.example", "exp": int(time.time()) + 300, **claims}
    return jwt.encode({k: v for k, v in told.items() if v is not None}, secret, algorithm)


class Seen:
    """An application that notes who asked."""

    def __init__(self, *, keys: bool = True, tokens: bool = True) -> None:
        self.viewer: Viewer | None = None
        known = UserTokens(SECRET, HEADER, 10) if tokens else None
        entries = [f"read:{READER}", f"read+ingest:{WRITER}", f"admin:{ADMIN}"]
        app = ViewerGuard(self.note, ViewerSources(known, owner_key="the-home's-own"))
        self.app = KeyGuard(app, parse_keys(entries)) if keys else app

    async def note(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.viewer = viewer()
        self.headers = {name for name, _ in scope["headers"]}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def ask(self, key: str = "", path: str = "/indexes", **headers: str) -> Answer:
        own = {"Authorization": f"Bearer {key}"} if key else {}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return called(self.app, path, headers={**own, **named})


def test_a_token_says_for_whom_a_key_asks_however_far_it_reaches() -> None:
    for key in (READER, WRITER, ADMIN):
        seen = Seen()
        assert seen.ask(key, X_OpenWebUI_User_Jwt=token()).status == 200
        assert seen.viewer
        assert seen.viewer.claims["email"] == "ann@x.example"
        assert not seen.viewer.sees_all
        assert not seen.viewer.may_change
        assert viewer() == NOBODY
        assert seen.headers == {b"authorization"}  # an upstream gets no token


@pytest.mark.parametrize(
    ("key", "found"),
    [(READER, NOBODY), (WRITER, Viewer(may_change=True)), (ADMIN, OWNER)],
)
def test_without_a_token_it_is_the_key_that_counts(key: str, found: Viewer) -> None:
    seen = Seen()
    assert seen.ask(key).status == 200
    assert seen.viewer == found
    assert seen.ask(key, path="/d/1-ab").status == 200  # where a key is not asked for
    assert seen.viewer == found
    assert seen.ask(path="/d/1-ab").status == 200
    assert seen.viewer == NOBODY


def test_without_keys_whoever_calls_is_nobody_but_the_home_s_own_commands() -> None:
    seen = Seen(keys=False)
    assert seen.ask().status == 200
    assert seen.viewer == NOBODY
    assert seen.ask(ADMIN, X_Embedserve_Owner="guessed").status == 200
    assert seen.viewer == NOBODY
    assert seen.ask(X_Embedserve_Owner="the-home's-own").status == 200
    assert seen.viewer == OWNER
    assert seen.headers == set()
    assert seen.ask(X_Embedserve_Owner="the-home's-own", X_OpenWebUI_User_Jwt=token()).status == 200
    assert seen.viewer.claims
    assert not seen.viewer.sees_all


def none_alg() -> str:
    return jwt.encode({"email": "ann@x.example", "exp": int(time.time()) + 300}, "", "none")


@pytest.mark.parametrize(
    "broken",
    [
        token("another-0123456789-0123456789-abcdef"),
        token(algorithm="HS512"),
        none_alg(),
        token(exp=int(time.time()) - 60),
        token(exp=None),
        token(nbf=int(time.time()) + 600),
        token(aud="somebody-else"),
        token()[:-4],
        "ann@x.example",
        "",
    ],
    ids=["secret", "hs512", "none", "expired", "endless", "early", "aud", "cut", "plain", "empty"],
)
def test_a_token_that_does_not_hold_is_refused(broken: str) -> None:
    for seen in (Seen(), Seen(keys=False)):
        found = seen.ask(ADMIN, X_OpenWebUI_User_Jwt=broken)
        assert found.status == 401
        assert seen.viewer is None
        assert b"EMBEDSERVE_USER_TOKEN_SECRET" in found.body
        assert "invalid_token" in found.headers["www-authenticate"]
        assert SECRET.encode() not in found.body


def test_clocks_may_differ_by_the_leeway() -> None:
    seen = Seen()
    assert seen.ask(READER, X_OpenWebUI_User_Jwt=token(exp=int(time.time()) - 5)).status == 200
    assert seen.ask(READER, X_OpenWebUI_User_Jwt=f"Bearer {token()}").status == 200


def test_a_header_that_nobody_can_check_makes_nobody_known() -> None:
    seen = Seen(tokens=False)
    assert seen.ask(READER, X_OpenWebUI_User_Jwt=token()).status == 200
    assert seen.viewer == NOBODY
    plain = {"X-OpenWebUI-User-Email": "ann@x.example"}
    assert called(Seen(keys=False).app, "/indexes", headers=plain).status == 200
    assert seen.viewer == NOBODY


def test_who_asks_is_over_with_the_request() -> None:
    with acting_as(OWNER):
        assert viewer() == OWNER
    assert viewer() == NOBODY
