"""A protected index on a live server: every route, asked by its users, by others and by nobody.

What each route does with it is in a table; a route that is in neither part of it fails a test.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from fastapi.routing import iter_route_contexts

from embedserve.api.app import HOT_ROUTES, NAMED_ROUTES, AppLimits, create_framework_app
from embedserve.api.replies import Services
from tests.identity_routes import CHANGES, ELSEWHERE, LIBRECHAT, LINKING, READS, ROWS, Row
from tests.identity_vault import (
    ADMIN,
    BOB,
    FORGED,
    MARKS,
    READER,
    TEXTS,
    VIEWERS,
    WRITER,
    Vault,
    open_vault,
    sent,
)


@pytest.fixture(scope="module")
def vault(model_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    with open_vault(model_home, tmp_path_factory.mktemp("vault")) as found:
        yield found


def test_every_route_is_in_the_table() -> None:
    app = create_framework_app(cast(Services, object()), AppLimits(1, (), is_loopback=True))
    found = {
        (method, str(one.path))
        for one in iter_route_contexts(app.routes)
        for method in one.methods or ()
        if method != "HEAD"
    }
    found |= {("POST", path) for path in (*HOT_ROUTES, *NAMED_ROUTES)}
    known = {*READS, *CHANGES}
    known |= {(method, path) for method, paths in ELSEWHERE.items() for path in paths.split()}
    known |= {
        (method, f"/librechat/{path}")
        for method, paths in LIBRECHAT.items()
        for path in paths.split()
    }
    assert found - known == set(), "say what a protected index shows there"
    assert known - found - {("GET", "/api/blobs/{digest}")} <= {
        pair for pair in known if pair[1] in ELSEWHERE["GET"] + ELSEWHERE["POST"] + "/process"
    }


def answer(
    vault: Vault, method: str, path: str, row: Row, headers: Mapping[str, str]
) -> tuple[int, str]:
    """Return the status and all that came back, with what a language model was given for it."""
    body = dict(row.body(vault))
    address = body.pop("path", None) or vault.fill(path)
    accept = body.pop("accept", None)
    vault.theirs.forget()
    reply = vault.ask(
        method, address, {**headers, **({"Accept": accept} if accept else {})}, **body
    )
    given = [json.dumps(asked.body) for asked in vault.theirs.asked]
    text = reply.text if "zip" not in reply.headers.get("content-type", "") else "an archive"
    return reply.status_code, text + "".join(given)


@pytest.mark.parametrize("name", ROWS)
def test_a_route_shows_what_its_caller_may_see(vault: Vault, name: str) -> None:
    method, path, row = ROWS[name]
    for who, (headers, seen) in VIEWERS.items():
        status, text = answer(vault, method, path, row, headers)
        marks = {one for one, mark in MARKS.items() if mark in text}
        assert marks <= seen, (who, text)
        CHECKS[row.shows](Shown(name, who, seen, status, text, marks))


@dataclass(frozen=True)
class Shown:
    """What one viewer was shown by one route."""

    route: str
    who: str
    seen: set[str]
    """What they may see."""
    status: int
    text: str
    marks: set[str]
    """Whose texts are shown."""


def shows_texts(shown: Shown) -> None:
    assert shown.status == 200, shown
    assert shown.marks == shown.seen, shown


def shows_names(shown: Shown) -> None:
    assert shown.status == 200, shown
    assert {one for one in TEXTS if f'"{one}"' in shown.text} == shown.seen, shown


def shows_facts(shown: Shown) -> None:
    assert shown.status == 200, shown
    assert not [one for one in TEXTS if f"{one}@x" in shown.text and one not in shown.seen], shown


def shows_attributes(shown: Shown) -> None:
    assert ("ann@x.example" in shown.text) == ("ann" in shown.seen), shown
    assert "bob" in shown.seen or "bob@x.example" not in shown.text, shown
    is_list = shown.route.endswith("/files")
    assert shown.status == (200 if "ann" in shown.seen or is_list else 404), shown


def shows_one_of_ann(shown: Shown) -> None:
    word = "ann@x.example" if "{path:path}" in shown.route else MARKS["ann"]
    assert (word in shown.text) == ("ann" in shown.seen), shown
    is_list = shown.route == "GET /v1/files" or "mcp" in shown.route
    assert shown.status == (200 if "ann" in shown.seen or is_list else 404), shown


def shows_one_of_bob(shown: Shown) -> None:
    assert shown.status == 200, shown
    assert shown.marks == shown.seen & {"bob"}, shown


def shows_all_or_nothing(shown: Shown) -> None:
    assert shown.status == (200 if shown.who == "admin" else 403), shown


def shows_changers(shown: Shown) -> None:
    is_shown = shown.status == 200 and "vault" in shown.text
    assert is_shown == (shown.who == "admin"), shown


CHECKS: dict[str, Callable[[Shown], None]] = {
    "texts": shows_texts,
    "names": shows_names,
    "facts": shows_facts,
    "attributes": shows_attributes,
    "one of ann": shows_one_of_ann,
    "one of bob": shows_one_of_bob,
    "all or nothing": shows_all_or_nothing,
    "changers": shows_changers,
}


@pytest.mark.parametrize("name", ROWS)
def test_a_forged_token_gets_nothing(vault: Vault, name: str) -> None:
    method, path, row = ROWS[name]
    for key in (READER, ADMIN):
        for forged in FORGED.values():
            status, text = answer(vault, method, path, row, sent(forged, key))
            # Dify takes a knowledge base whose key is refused with 401.
            assert status == (403 if path == "/retrieval" else 401), text
            assert not [mark for mark in MARKS.values() if mark in text]


@pytest.mark.parametrize("name", [one for one in ROWS if not one.startswith("GET /d/")])
def test_links_open_for_a_browser_of_who_was_given_them(vault: Vault, name: str) -> None:
    method, path, row = ROWS[name]
    for who, (headers, seen) in VIEWERS.items():
        _, text = answer(vault, method, path, row, headers)
        given = "".join(json.dumps(asked.body) for asked in vault.theirs.asked)
        assert "/d/" not in given  # a language model is told no address
        links = set(re.findall(r'/d/[^"\s)\\<]+', text)) - {"/d/{document}"}
        is_proven = "X-OpenWebUI-User-Jwt" in headers or who == "admin"
        if who == "ann":
            assert bool(links) == (name in LINKING), text
        for link in links:
            assert ("signed=" in link) == is_proven, (who, link)
            opened = vault.ask("GET", link.partition("#")[0], {})
            assert opened.status_code == 200, (who, link)
            assert {one for one, mark in MARKS.items() if mark in opened.text} <= seen


@pytest.mark.parametrize("key", [WRITER, ADMIN])
@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_no_user_token_changes_anything(vault: Vault, method: str, path: str, key: str) -> None:
    body = json.loads(json.dumps(CHANGES[method, path]).replace("{file_id}", vault.file))
    reply = vault.ask(method, vault.fill(path), sent(BOB, key), **body)
    assert reply.status_code in (403, 404), reply.text
    assert not [mark for mark in MARKS.values() if mark in reply.text]
    counts = vault.ask("GET", "/indexes/vault", sent(None, ADMIN)).json()["counts"]
    assert counts["documents"] == len(TEXTS) + 1
