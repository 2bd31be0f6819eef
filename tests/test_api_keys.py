"""API keys: which route needs what, how a key is sent, and that no key is ever told."""

from typing import cast

import pytest
from fastapi.routing import iter_route_contexts

from embedserve.api.app import HOT_ROUTES, NAMED_ROUTES, AppLimits, create_framework_app
from embedserve.api.keys import KeyGuard, parse_keys
from embedserve.api.replies import Services
from embedserve.api.scopes import ADMIN, INGEST, OPEN, READ, ROWS, scope_of
from embedserve.errors import StartupError
from tests.asgi import answer_ok, called

READER, WRITER, OWNER = ("reader-0123456789", "writer-0123456789", "owner-0123456789")
ENTRIES = [f"read:{READER}", f"ingest+read:{WRITER}", f" admin:{OWNER} ", "# a comment", ""]


@pytest.fixture
def guard() -> KeyGuard:
    return KeyGuard(answer_ok, parse_keys(ENTRIES))


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_every_route_says_which_scope_it_needs() -> None:
    app = create_framework_app(cast(Services, object()), AppLimits(1, (), is_loopback=True))
    contexts = iter_route_contexts(app.routes)
    routes = {(method, str(one.path)) for one in contexts for method in one.methods or ()}
    routes |= {("POST", path) for path in (*HOT_ROUTES, *NAMED_ROUTES)}
    assert len(routes) > 20
    named = {("GET" if method == "HEAD" else method, path) for method, path in routes}
    assert named - set(ROWS) == set(), "api/scopes.py needs a row for each"


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("HEAD", "/", OPEN),
        ("GET", "/health", OPEN),
        ("GET", "/metrics", READ),
        ("GET", "/v1/models/hf.co/a/b", READ),
        ("POST", "/indexes/häuser/query", READ),
        ("DELETE", "/indexes/a", INGEST),
        ("DELETE", "/api/delete", ADMIN),
        ("POST", "/", ADMIN),
        ("POST", "/api/unheard-of", ADMIN),
        ("GET", "/indexes/a/../b", ADMIN),
        ("DELETE", "/api/embed", ADMIN),
    ],
)
def test_what_no_row_names_needs_the_highest_scope(method: str, path: str, scope: str) -> None:
    assert scope_of(method, path) == scope


@pytest.mark.parametrize("path", ["/", "/api/version", "/health", "/ready"])
def test_probes_need_no_key(guard: KeyGuard, path: str) -> None:
    assert called(guard, path).status == 200
    assert called(guard, path, method="HEAD", headers=bearer("wrong")).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        bearer(READER),
        {"Authorization": f"bearer  {READER}"},
        {"X-Api-Key": READER},
        {"Api-Key": READER},
        {"Authorization": "Bearer ", "X-Api-Key": READER},
        {"Authorization": "Basic abc", "Api-Key": READER},
    ],
)
def test_a_key_is_taken_from_each_header(guard: KeyGuard, headers: dict[str, str]) -> None:
    assert called(guard, "/api/embed", method="POST", headers=headers).status == 200


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer "}, bearer("unknown-012345678")])
@pytest.mark.parametrize("path", ["/api/embed", "/v1/embeddings", "/indexes"])
def test_without_a_known_key_nothing_is_done(
    guard: KeyGuard, headers: dict[str, str], path: str
) -> None:
    found = called(guard, path, method="POST", headers=headers)
    assert found.status == 401
    assert found.headers["www-authenticate"].startswith('Bearer realm="embedserve"')
    assert (b'"type"' in found.body) == path.startswith("/v1/")
    assert b"unknown-012345678" not in found.body


@pytest.mark.parametrize(
    ("key", "allowed"),
    [(READER, {READ}), (WRITER, {READ, INGEST}), (OWNER, {READ, INGEST, ADMIN})],
)
def test_a_key_reaches_as_far_as_its_scopes(guard: KeyGuard, key: str, allowed: set[str]) -> None:
    for (method, path), scope in ROWS.items():
        found = called(guard, path, method=method, headers=bearer(key))
        assert found.status == (200 if scope in allowed | {OPEN} else 403), (method, path)
        if found.status == 403:
            assert f'scope="{scope}"' in found.headers["www-authenticate"]
            assert key.encode() not in found.body


@pytest.mark.parametrize(
    "entry",
    ["secret-0123456789", "admin:short", "root:secret-0123456789", "admin:secret 0123456789", "a:"],
)
def test_an_entry_that_is_none_is_named_by_its_number(entry: str) -> None:
    with pytest.raises(StartupError, match="Entry 2") as raised:
        parse_keys([f"read:{READER}", entry])
    assert "0123456789" not in raised.value.message
