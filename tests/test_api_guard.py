"""Which pages and host names may call, and what CORS tells them: section by section as Ollama."""

import socket

import pytest

from embedserve.api.guard import BrowserGuard
from tests.asgi import answer_ok, called

LOCAL = {"Host": "127.0.0.1:11434"}


def guard(*origins: str, is_loopback: bool = True) -> BrowserGuard:
    return BrowserGuard(answer_ok, origins=origins, is_loopback=is_loopback)


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        ("http://localhost", True),
        ("https://localhost:3000", True),
        ("http://127.0.0.1:8080", True),
        ("http://0.0.0.0", True),
        ("app://obsidian.md", True),
        ("file://", True),
        ("tauri://localhost", True),
        ("vscode-webview://1b2c", True),
        ("vscode-file://vscode-app", True),
        ("chrome-extension://abcdef", False),
        ("https://evil.example", False),
        ("http://localhost.evil.example", False),
        ("http://192.168.1.9", False),
        ("null", False),
        ("http://localhost:1/" + "a" * 600, False),
    ],
)
def test_pages_of_this_machine_and_programs_may_call(origin: str, *, is_allowed: bool) -> None:
    found = called(guard(), "/api/tags", headers={**LOCAL, "Origin": origin})
    assert found.status == (200 if is_allowed else 403)
    assert found.headers.get("access-control-allow-origin") == (origin if is_allowed else None)
    assert ("Origin" in found.headers.get("vary", "")) == is_allowed


@pytest.mark.parametrize(
    ("pattern", "origin", "status"),
    [
        ("https://chat.example", "https://chat.example", 200),
        ("https://chat.example/", "https://CHAT.example", 200),
        ("https://chat.example", "https://chat.example:8443", 403),
        ("https://chat.example:*", "https://chat.example:8443", 200),
        ("https://*.example", "https://a.b.example", 200),
        ("https://*.example", "https://a.example.evil", 403),
        ("chrome-extension://*", "chrome-extension://abcdef", 200),
        ("null", "null", 200),
        ("https://a.example", "https://aXexample", 403),
    ],
)
def test_patterns_open_what_they_name(pattern: str, origin: str, status: int) -> None:
    found = called(guard(pattern), "/api/tags", headers={**LOCAL, "Origin": origin})
    assert found.status == status


def test_a_star_alone_opens_to_every_page_and_name() -> None:
    headers = {"Host": "embed.example", "Origin": "https://any.example"}
    found = called(guard("*"), "/api/tags", headers=headers)
    assert (found.status, found.headers["access-control-allow-origin"]) == (200, "*")


def test_preflight_is_answered_for_pages_that_may_call() -> None:
    headers = {**LOCAL, "Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
    found = called(guard(), "/api/embed", method="OPTIONS", headers=headers)
    assert (found.status, found.body) == (204, b"")
    assert found.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert found.headers["access-control-max-age"] == "43200"
    methods = found.headers["access-control-allow-methods"].split(",")
    assert {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"} == set(methods)
    allowed = found.headers["access-control-allow-headers"].lower().split(",")
    assert {"authorization", "content-type", "openai-beta", "x-stainless-retry-count"} < set(
        allowed
    )
    foreign = {**headers, "Origin": "https://evil.example"}
    refused = called(guard(), "/api/embed", method="OPTIONS", headers=foreign)
    assert refused.status == 403
    assert "access-control-allow-methods" not in refused.headers


def test_own_pages_and_programs_pass_without_cors() -> None:
    for headers in (
        {"Host": "box.local:1"},
        {"Host": "box.local:1", "Origin": "http://box.local:1"},
    ):
        found = called(guard(), "/api/tags", headers=headers)
        assert found.status == 200
        assert "access-control-allow-origin" not in found.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:11434", 200),
        ("[::1]:11434", 200),
        ("localhost", 200),
        ("", 200),
        ("0.0.0.0:11434", 200),
        ("192.168.7.7", 200),
        (socket.gethostname(), 200),
        ("app.localhost", 200),
        ("nas.local:80", 200),
        ("host.docker.internal:11434", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("8.8.8.8", 403),
    ],
)
def test_on_loopback_other_names_are_refused(host: str, status: int) -> None:
    assert called(guard(), "/api/tags", headers={"Host": host}).status == status
    asked = called(guard(), "/api/tags", method="OPTIONS", headers={"Host": host})
    assert asked.status == (204 if status == 200 else 403)
    # Who listens to others cannot know the names that they use.
    everywhere = guard(is_loopback=False)
    assert called(everywhere, "/api/tags", headers={"Host": host}).status == 200
