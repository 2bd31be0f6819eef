"""A protected index on a live server: what a table of routes does not tell of each user's share."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from tests.identity_vault import (
    ADMIN,
    ANN,
    BOB,
    LIBRECHAT_SECRET,
    MARKS,
    READER,
    VIEWERS,
    WRITER,
    Vault,
    chat,
    open_vault,
    sent,
)


@pytest.fixture(scope="module")
def vault(model_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    with open_vault(model_home, tmp_path_factory.mktemp("vault")) as found:
        yield found


def test_counts_are_of_what_is_seen(vault: Vault) -> None:
    for headers, seen in VIEWERS.values():
        documents = len(seen) + ("ann" in seen)  # her file is a document too
        report = vault.ask("GET", "/indexes/vault", headers).json()
        assert report["counts"]["documents"] == documents
        [listed] = vault.ask("GET", "/indexes", headers).json()["indexes"]
        assert listed["counts"]["chunks"] == documents
        store = vault.ask("GET", "/v1/vector_stores/vault", headers).json()
        assert store["file_counts"]["total"] == documents
        asked = {"query": "nosuchword", "mode": "lexical", "filter": {"metadata": {"bobkey": 1}}}
        told = vault.ask("POST", "/indexes/vault/query", headers, json=asked).json()
        assert "bobkey" not in json.dumps(told)
        whole = vault.ask("POST", "/indexes/vault/query", headers,
                          json={"query": MARKS["bob"], "mode": "lexical"}).json()  # fmt: skip
        assert len(whole["hits"]) == ("bob" in seen)
        assert whole["best_rejected"] is None


def test_spellings_are_of_what_is_seen(vault: Vault) -> None:
    asked = {"query": "secretmarmalada", "mode": "lexical"}
    for who, (headers, _) in VIEWERS.items():
        found = vault.ask("POST", "/indexes/vault/query", headers, json=asked).json()
        assert found["hits"] == []
        assert bool(found["suggestions"]) == (who == "admin")


def test_a_text_that_two_have_names_the_document_that_is_seen(vault: Vault) -> None:
    for name, owner in (("copy-of-bob", "bob@x.example"), ("copy-of-ann", "ann@x.example")):
        body = {"text": "The same sentencetwice.", "name": name, "metadata": {"owner": owner}}
        reply = vault.ask(
            "POST", "/indexes/vault/documents?wait=true", sent(None, WRITER), json=body
        )
        assert reply.status_code == 200, reply.text
    try:
        for value, name in ((ANN, "copy-of-ann"), (BOB, "copy-of-bob")):
            asked = {"query": "sentencetwice", "mode": "lexical"}
            reply = vault.ask("POST", "/indexes/vault/query", sent(value), json=asked)
            [hit] = reply.json()["hits"]
            assert (hit["document"]["path"], hit["places"], hit["also_in"]) == (name, 1, [])
    finally:
        for name in ("copy-of-bob", "copy-of-ann"):
            vault.ask("DELETE", f"/indexes/vault/documents/{name}", sent(None, WRITER))


def test_a_chat_answers_each_user_from_their_own_documents(vault: Vault) -> None:
    """As Open WebUI asks: one key for all, and a token for each user."""
    for value, mark, others in ((ANN, "ann", "bob"), (BOB, "bob", "ann")):
        vault.theirs.forget()
        headers = {**sent(value), "X-OpenWebUI-Chat-Id": "c-1"}
        asked = {**chat()["json"], "stream": True}
        reply = vault.ask("POST", "/openwebui/v1/chat/completions", headers, json=asked)
        assert reply.status_code == 200
        [given] = vault.theirs.asked
        assert MARKS[mark] in given.last
        assert MARKS[mark] in reply.text  # the sources that the page shows
        assert MARKS[others] not in json.dumps(given.body) + reply.text
        assert value not in json.dumps(given.headers)


def test_files_of_librechat_keep_to_their_user(vault: Vault) -> None:
    rules = [{"claim": "id", "field": name} for name in ("user_id", "uploader")]
    definition = {"access": {"rules": rules}}
    vault.ask("PUT", "/indexes/librechat", sent(None, ADMIN), json=definition).raise_for_status()
    exp = int(time.time()) + 300
    ann, bob = (
        {"Authorization": f"Bearer {jwt.encode({'id': who, 'exp': exp}, LIBRECHAT_SECRET)}"}
        for who in ("ann", "bob")
    )
    form = {"file": ("jam.txt", b"The jam of LibreChat is secretquince.")}
    http = vault.live.http
    reply = http.post("/librechat/embed", files=form, data={"file_id": "f-1"}, headers=ann)
    assert reply.status_code == 200, reply.text
    asked = {"file_id": "f-1", "query": "What is the jam?", "k": 5}
    assert "secretquince" in http.post("/librechat/query", json=asked, headers=ann).text
    assert "secretquince" in http.get("/librechat/documents/f-1/context", headers=ann).text
    assert http.post("/librechat/query", json=asked, headers=bob).json() == []
    assert http.get("/librechat/ids", headers=bob).json() == []
    assert http.get("/librechat/documents/f-1/context", headers=bob).status_code == 404
    assert http.post("/librechat/query", json=asked).status_code == 401
    question = {"query": "What is the jam of LibreChat?"}
    for headers in (sent(None), sent(ANN), {**ann, "X-Api-Key": READER}):
        other = vault.ask("POST", "/indexes/librechat/query", headers, json=question)
        assert "secretquince" not in other.text
    gone = http.request("DELETE", "/librechat/documents", json=["f-1"], headers=bob)
    assert gone.status_code == 404
    gone = http.request("DELETE", "/librechat/documents", json=["f-1"], headers=ann)
    assert gone.status_code == 200


DRAWER = {"access": {"rules": [{"claim": "email", "field": "owner"}]}}
LONG = "The drawer of Ann holds secretpepper. " + "Nothing else is in it but string. " * 4_000


@dataclass
class Drawer:
    """An index whose documents and rules change, and browsers, which send no key and no token."""

    vault: Vault

    def put(self, text: str = LONG, owner: str = "ann@x.example") -> None:
        asked = {"wait": "true", "metadata": json.dumps({"owner": owner})}
        path, writer = "/indexes/drawer/documents/a.txt", sent(None, WRITER)
        self.vault.ask("PUT", path, writer, content=text, params=asked).raise_for_status()

    def rule(self, definition: dict[str, Any]) -> None:
        admin = sent(None, ADMIN)
        self.vault.ask("PUT", "/indexes/drawer", admin, json=definition).raise_for_status()

    def link(self) -> str:
        """Return the link that Ann is given, as a browser asks for it."""
        asked = {"query": "secretpepper", "mode": "lexical"}
        reply = self.vault.ask("POST", "/indexes/drawer/query", sent(ANN), json=asked)
        return str(reply.json()["hits"][0]["permalink"]).partition("#")[0]

    def browse(self, link: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        return self.vault.ask("GET", link, headers or {})


@pytest.fixture
def drawer(vault: Vault) -> Iterator[Drawer]:
    found = Drawer(vault)
    found.rule(DRAWER)
    found.put()
    yield found
    vault.ask("DELETE", "/indexes/drawer", sent(None, ADMIN)).raise_for_status()


def test_a_signed_link_opens_the_page_its_parts_and_the_original(drawer: Drawer) -> None:
    shown = drawer.browse(drawer.link() + "&chars=0-40")
    assert "<mark>The drawer of Ann holds secretpepper" in shown.text
    assert shown.headers["referrer-policy"] == "no-referrer"
    assert shown.headers["cache-control"] == "private, no-store"
    below = [unescape(one) for one in re.findall('href="([^"]+)"', shown.text)]
    assert [("/original?" in one, "from=" in one) for one in below] == [
        (True, False),
        (False, True),
    ]
    for one in below:
        assert drawer.browse(one).status_code == 200
        assert drawer.browse(one.partition("signed=")[0]).status_code == 404
    assert drawer.browse(below[0]).text == LONG


def test_a_link_that_is_forged_or_of_another_document_is_as_one_that_is_none(
    drawer: Drawer,
) -> None:
    link = drawer.link()
    page, _, signed = link.partition("signed=")
    until, _, code = signed.partition("-")
    other = drawer.vault.page
    forged = [
        f"{int(until) + 60}-{code}",
        f"{until}-{'0' * 32}",
        f"{int(until) - 7200}-{code}",
        "",
        "<b>",
    ]
    bad = [page + one for one in forged] + [f"/d/{other}?signed={signed}", page.partition("?")[0]]
    missing = drawer.browse("/d/1-00000000000000000000")
    for one in bad:
        for below in ("", "/original"):
            path, _, query = one.partition("?")
            reply = drawer.browse(f"{path}{below}?{query}")
            assert (reply.status_code, reply.text) == (404, missing.text), one
    assert drawer.browse(link).status_code == 200
    assert drawer.browse(link, sent(BOB)).status_code == 404
    assert drawer.browse(link, sent(None)).status_code == 200


def test_a_link_ends_with_what_it_was_given_for(drawer: Drawer) -> None:
    link = drawer.link()
    drawer.put(LONG, owner="bob@x.example")
    assert drawer.browse(link).status_code == 404
    drawer.put(LONG)
    assert drawer.browse(link).status_code == 200
    drawer.put(LONG + "More.")
    assert drawer.browse(link).status_code == 404
    link = drawer.link()
    assert drawer.browse(link).status_code == 200
    drawer.rule({"access": {"rules": [{"claim": "email", "field": "editor"}]}})
    assert drawer.browse(link).status_code == 404
