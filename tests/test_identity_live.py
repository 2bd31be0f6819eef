"""A protected index on a live server: every route, asked by its users, by others and by nobody.

What each route does with it is in a table; a route that is in neither part of it fails a test.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import httpx
import jwt
import pytest
from fastapi.routing import iter_route_contexts

from embedserve.api.app import HOT_ROUTES, AppLimits, create_framework_app
from embedserve.api.replies import Services
from tests.live import LiveServer, environment
from tests.llm_double import LanguageModels, language_models
from tests.quick_model import install_quick

SECRET = "forwarded-by-the-front-end-0123456789-abcdef"
LIBRECHAT_SECRET = "librechat-jwt-secret-0123456789abcdef"
READER, WRITER, ADMIN = "reader-0123456789", "writer-0123456789", "admin-01234567890"
ACCESS = {
    "rules": [{"claim": "email", "field": "owner"}, {"claim": "groups", "field": "groups"}],
    "public": {"metadata": {"visibility": "public"}},
}
DEFINITION = {
    "search": {"k": 20, "passage_tokens": 0},
    "chat": {"min_score": 0},
    "access": ACCESS,
}
TEXTS = {
    "ann": ("Ann's recipe for jam is secretmarmalade.", {"owner": "ann@x.example", "annkey": 1}),
    "bob": ("Bob's recipe for tea is secretbergamot.", {"owner": "bob@x.example", "bobkey": 1}),
    "staff": ("The recipe of the staff is secretstew.", {"groups": ["staff", "board"]}),
    "all": ("The recipe for everybody is opensoup.", {"visibility": "public"}),
    "nobody": ("The recipe without an owner is secretghost.", {}),
}
MARKS = {name: text.rstrip(".").rpartition(" ")[2] for name, (text, _) in TEXTS.items()}
QUESTION = "What is the recipe?"


LASTING_S = 24 * 3600
"""Tokens of the tables below are made when the tests are collected, long before they are sent."""


def token(email: str, secret: str = SECRET, algorithm: str = "HS256", **claims: object) -> str:
    """Return what Open WebUI forwards."""
    now = int(time.time())
    told = {"sub": email, "email": email, "name": email, "role": "user", "iss": "open-webui"}
    key = None if algorithm == "none" else secret
    return jwt.encode({**told, "iat": now, "exp": now + LASTING_S, **claims}, key, algorithm)  # type: ignore[arg-type]


def sent(value: str | None, key: str = READER) -> dict[str, str]:
    given = {} if value is None else {"X-OpenWebUI-User-Jwt": value}
    return {"Authorization": f"Bearer {key}", **given}


ANN, BOB = token("ann@x.example"), token("bob@x.example", groups=["staff"])
VIEWERS: dict[str, tuple[dict[str, str], set[str]]] = {
    "ann": (sent(ANN), {"ann", "all"}),
    "ann with an admin's key": (sent(ANN, ADMIN), {"ann", "all"}),
    "bob": (sent(BOB), {"bob", "staff", "all"}),
    "eve": (sent(token("eve@x.example")), {"all"}),
    "no claim": (sent(token("")), {"all"}),
    "no token": (sent(None), {"all"}),
    "plain headers": ({**sent(None), "X-OpenWebUI-User-Email": "ann@x.example"}, {"all"}),
    "admin": (sent(None, ADMIN), set(TEXTS)),
}
FORGED = {
    "secret": token("ann@x.example", secret="some-other-secret-0123456789-0123456789"),
    "none": token("ann@x.example", algorithm="none"),
    "expired": token("ann@x.example", exp=int(time.time()) - 3600),
}


@dataclass
class Vault:
    """The server, and the ids of what belongs to Ann."""

    live: LiveServer
    theirs: LanguageModels
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    file: str = ""
    batch: str = ""
    job: str = ""

    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        **body: Any,  # noqa: ANN401  as httpx has it
    ) -> httpx.Response:
        return self.live.http.request(method, path, headers=dict(headers), **body)

    @cached_property
    def page(self) -> str:
        """Return the token of the page of Ann's document."""
        asked = {"query": MARKS["ann"], "k": 50, "filter": {"paths": ["ann"]}}
        reply = self.ask("POST", "/indexes/vault/query", sent(ANN), json=asked)
        return str(reply.json()["hits"][0]["permalink"]).removeprefix("/d/").partition("?")[0]

    def fill(self, path: str) -> str:
        """Put what is Ann's into the path of a route."""
        of_document = {"path:path": "ann", "document": self.page}
        names = {"name": "vault", "file_id": self.file, "batch_id": self.batch, "job_id": self.job}
        for key, value in {**names, **of_document}.items():
            path = path.replace(f"{{{key}}}", value)
        return path


@pytest.fixture(scope="module")
def vault(model_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    home = tmp_path_factory.mktemp("vault") / "home"
    install_quick(model_home, home)
    with language_models() as theirs:
        settings = {
            "EMBEDSERVE_API_KEYS": f"read:{READER},read+ingest:{WRITER},admin:{ADMIN}",
            "EMBEDSERVE_USER_TOKEN_SECRET": SECRET,
            "EMBEDSERVE_LIBRECHAT_SECRET": LIBRECHAT_SECRET,
            "EMBEDSERVE_CHAT_UPSTREAMS": f"cloud={theirs.url}/v1",
        }
        with LiveServer(home, settings=settings) as live:
            found = Vault(live, theirs)
            fill(found)
            yield found
    assert "Traceback" not in live.log(), live.log()
    assert SECRET not in live.log()


def fill(vault: Vault) -> None:
    """Make the index with a key that may write and not see all."""
    http, writer = vault.live.http, sent(None, WRITER)
    http.put("/indexes/vault", json=DEFINITION, headers=writer).raise_for_status()
    for name, (text, metadata) in TEXTS.items():
        if name == "ann":
            continue
        body = {"text": text, "name": name, "metadata": metadata}
        reply = http.post("/indexes/vault/documents?wait=true", json=body, headers=writer)
        assert reply.status_code == 200, reply.text
        vault.job = reply.json()["job"]["id"]
    text, metadata = TEXTS["ann"]
    reply = http.put(
        "/indexes/vault/documents/ann",
        params={"wait": "true", "metadata": json.dumps(metadata)},
        content=text,
        headers=writer,
    )
    assert reply.status_code == 200, reply.text
    assert reply.json()["documents"][0]["path"] == "ann"
    vault.job = reply.json()["job"]["id"]
    form = {"file": ("secretmarmalade.txt", text.encode())}
    sent_file = http.post("/v1/files", files=form, data={"purpose": "assistants"}, headers=writer)
    vault.file = sent_file.json()["id"]
    batch = {"file_ids": [vault.file], "attributes": {"owner": "ann@x.example"}}
    reply = http.post("/v1/vector_stores/vault/file_batches", json=batch, headers=writer)
    assert reply.status_code == 200, reply.text
    vault.batch = reply.json()["id"]
    while (
        http.get(f"/v1/vector_stores/vault/file_batches/{vault.batch}", headers=writer).json()[
            "status"
        ]
        == "in_progress"
    ):
        time.sleep(0.05)


# -- the table --------------------------------------------------------------------------------

Body = dict[str, Any]
CHAT: Body = {"json": {"messages": [{"role": "user", "content": QUESTION}], "stream": False}}


def chat(model: str = "rag/vault") -> Body:
    return {"json": {**CHAT["json"], "model": model}}


def tool_call(name: str, **arguments: object) -> Body:
    call = {"method": "tools/call", "params": {"name": name, "arguments": arguments}}
    return {
        "json": {"jsonrpc": "2.0", "id": 1, **call},
        "accept": "application/json, text/event-stream",
    }


@dataclass(frozen=True)
class Row:
    """How a route is asked for what it shows of the index."""

    body: Callable[[Vault], Body] = lambda _: {}
    shows: str = "texts"
    """Which of CHECKS is made of the answer."""


def of(body: Body, shows: str = "texts") -> Row:
    return Row(lambda _: body, shows)


READS: dict[tuple[str, str], Row] = {
    ("GET", "/indexes"): of({}, "facts"),
    ("GET", "/indexes/{name}"): of({}, "facts"),
    ("GET", "/indexes/{name}/export"): of({}, "all or nothing"),
    ("GET", "/indexes/{name}/documents"): of({}, "names"),
    ("GET", "/indexes/{name}/documents/{path:path}"): of({}, "one of ann"),
    ("GET", "/d/{document}"): of({}, "one of ann"),
    ("GET", "/d/{document}/original"): of({}, "one of ann"),
    ("GET", "/jobs"): of({}, "changers"),
    ("GET", "/jobs/{job_id}"): of({}, "changers"),
    ("GET", "/jobs/{job_id}/events"): of({}, "changers"),
    ("GET", "/v1/files"): of({}, "one of ann"),
    ("GET", "/v1/files/{file_id}"): of({}, "one of ann"),
    ("GET", "/v1/files/{file_id}/content"): of({}, "one of ann"),
    ("GET", "/v1/vector_stores"): of({}, "facts"),
    ("GET", "/v1/vector_stores/{name}"): of({}, "facts"),
    ("GET", "/v1/vector_stores/{name}/files"): of({}, "attributes"),
    ("GET", "/v1/vector_stores/{name}/files/{file_id}"): of({}, "attributes"),
    ("GET", "/v1/vector_stores/{name}/files/{file_id}/content"): of({}, "one of ann"),
    ("GET", "/v1/vector_stores/{name}/file_batches/{batch_id}"): of({}, "changers"),
    ("GET", "/v1/vector_stores/{name}/file_batches/{batch_id}/files"): of({}, "changers"),
    ("POST", "/indexes/{name}/query"): of({"json": {"query": QUESTION, "explain": True}}),
    ("POST", "/query"): of({"json": {"query": QUESTION, "indexes": ["vault"], "explain": True}}),
    ("POST", "/retrieval"): of(
        {"json": {"knowledge_id": "vault", "query": QUESTION, "retrieval_setting": {"top_k": 20}}}
    ),
    ("POST", "/v1/vector_stores/{name}/search"): of(
        {"json": {"query": QUESTION, "max_num_results": 20}}
    ),
    ("POST", "/tools/{name}"): of({"path": "/tools/search_chunks", "json": {"query": QUESTION}}),
    ("POST", "/mcp"): of(tool_call("search_chunks", query=QUESTION, k=20)),
    ("POST", "/v1/chat/completions"): of(chat()),
    ("POST", "/openwebui/v1/chat/completions"): of(chat()),
    ("POST", "/api/chat"): of(chat()),
}
"""Routes that show something of an index."""

BY_ID: dict[str, Row] = {
    "fetch": Row(lambda v: {"path": "/tools/fetch", "json": {"id": v.page}}, "one of ann"),
    "read_range": Row(
        lambda v: {"path": "/tools/read_range", "json": {"id": v.page, "start": 0, "end": 900}},
        "one of ann",
    ),
    "mcp fetch": Row(lambda v: {"path": "/mcp", **tool_call("fetch", id=v.page)}, "one of ann"),
    "search": of({"path": "/tools/search", "json": {"query": QUESTION}}, "names"),
    "list_indexes": of({"path": "/tools/list_indexes", "json": {}}, "facts"),
    "misspelt": of(
        {"path": "/indexes/vault/query", "json": {"query": "secretmarmelade", "mode": "lexical"}},
        "facts",
    ),
    "asked for what is not theirs": of(
        {
            "path": "/indexes/vault/query",
            "json": {"query": "secretbergamot", "filter": {"metadata": {"bobkey": 1}}},
        },
        "one of bob",
    ),
}
"""More ways than one into the same routes."""

CHANGES: dict[tuple[str, str], Body] = {
    ("PUT", "/indexes/{name}"): {"json": {}},
    ("DELETE", "/indexes/{name}"): {},
    ("PUT", "/indexes/{name}/documents/{path:path}"): {"content": "mine"},
    ("DELETE", "/indexes/{name}/documents/{path:path}"): {},
    ("POST", "/indexes/{name}/documents"): {"json": {"text": "x", "name": "ann"}},
    ("POST", "/indexes/{name}/documents/delete"): {"json": {"filter": {"paths": ["*"]}}},
    ("POST", "/indexes/{name}/ingest"): {"json": {"path": "/tmp", "dry_run": True}},
    ("POST", "/indexes/{name}/check"): {"json": {}},
    ("POST", "/indexes/{name}/rebuild"): {},
    ("POST", "/jobs/{job_id}/cancel"): {},
    ("POST", "/jobs/{job_id}/retry"): {},
    ("DELETE", "/v1/files/{file_id}"): {},
    ("POST", "/v1/vector_stores/{name}"): {"json": {"name": "mine"}},
    ("DELETE", "/v1/vector_stores/{name}"): {},
    ("POST", "/v1/vector_stores/{name}/files"): {"json": {"file_id": "{file_id}"}},
    ("POST", "/v1/vector_stores/{name}/files/{file_id}"): {"json": {"attributes": {}}},
    ("DELETE", "/v1/vector_stores/{name}/files/{file_id}"): {},
    ("POST", "/v1/vector_stores/{name}/file_batches"): {"json": {"file_ids": ["{file_id}"]}},
    ("POST", "/v1/vector_stores/{name}/file_batches/{batch_id}/cancel"): {},
}
"""Routes that change something: no user token may."""

ELSEWHERE = {
    # Of models, of the machine, of what comes in the request itself.
    "GET": "/ /api/version /health /ready /api/tags /api/ps /api/status /v1/models "
    "/v1/models/{name:path} /openwebui/v1/models /info /metrics /docs /docs/oauth2-redirect /redoc "
    "/openapi.json /tools/openapi.json /api/blobs/{digest}",
    "PUT": "/process",
    "DELETE": "/api/delete",
    "POST": "/api/embed /api/embeddings /api/show /api/rerank /api/tokenize /api/detokenize "
    "/api/generate /v1/embeddings /v1/rerank /v2/rerank /v1/completions /v1/responses /v1/messages "
    "/v1/audio/transcriptions /embed /embed_all /rerank /similarity /tokenize /decode /api/pull "
    "/api/push /api/copy /api/create /api/blobs/{digest} /api/me /api/signout /vacuum "
    # What comes is new, and files are nobody's until they are attached.
    "/indexes/import /v1/files /v1/vector_stores",
}
LIBRECHAT = {
    "GET": "health ids documents documents/{file_id}/context",
    "POST": "embed embed-upload text query query_multiple",
    "DELETE": "documents",
}
"""They read no key and no forwarded token, but LibreChat's own: a test of their own below."""


def test_every_route_is_in_the_table() -> None:
    app = create_framework_app(cast(Services, object()), AppLimits(1, (), is_loopback=True))
    found = {
        (method, str(one.path))
        for one in iter_route_contexts(app.routes)
        for method in one.methods or ()
        if method != "HEAD"
    }
    found |= {("POST", path) for path in HOT_ROUTES}
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


ROWS = {**{f"{method} {path}": (method, path, row) for (method, path), row in READS.items()},
        **{name: ("POST", "", row) for name, row in BY_ID.items()}}  # fmt: skip


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


@pytest.mark.parametrize("key", [WRITER, ADMIN])
@pytest.mark.parametrize(("method", "path"), CHANGES)
def test_no_user_token_changes_anything(vault: Vault, method: str, path: str, key: str) -> None:
    body = json.loads(json.dumps(CHANGES[method, path]).replace("{file_id}", vault.file))
    reply = vault.ask(method, vault.fill(path), sent(BOB, key), **body)
    assert reply.status_code in (403, 404), reply.text
    assert not [mark for mark in MARKS.values() if mark in reply.text]
    counts = vault.ask("GET", "/indexes/vault", sent(None, ADMIN)).json()["counts"]
    assert counts["documents"] == len(TEXTS) + 1


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


# -- without keys, and the commands of the home's owner -----------------------------------------


def test_no_key_is_no_permission_and_the_owner_of_the_home_sees_all(
    model_home: Path, tmp_path: Path
) -> None:
    home, definitions = tmp_path / "home", tmp_path / "definitions"
    install_quick(model_home, home)
    definitions.mkdir()
    rules = '[access]\nrules = [{claim = "email", field = "owner"}]\n'
    (definitions / "vault.toml").write_text(rules)
    settings = {
        "EMBEDSERVE_USER_TOKEN_SECRET": SECRET,
        "EMBEDSERVE_USER_TOKEN_HEADER": "X-Who",
        "EMBEDSERVE_DEFINITIONS": str(definitions),
    }
    add = ["documents", "add", "--index", "vault", "--name", "ann", "-"]
    metadata = ["--metadata", "owner=ann@x.example"]
    with LiveServer(home, settings=settings) as live:
        shown = command(home, *add, *metadata, stdin=TEXTS["ann"][0])
        assert shown.returncode == 0, shown.stderr
        shown = command(home, "query", "--index", "vault", QUESTION, "--json")
        assert MARKS["ann"] in shown.stdout, shown.stderr
        asked: Body = {"json": {"query": QUESTION}}
        path, ann = "/indexes/vault/query", token("ann@x.example")
        assert MARKS["ann"] in live.http.post(path, headers={"X-Who": ann}, **asked).text
        assert live.http.post(path, headers={"X-Who": ann[:-3]}, **asked).status_code == 401
        for headers in ({}, {"X-OpenWebUI-User-Jwt": ann}, {"X-Embedserve-Owner": "x" * 43}):
            reply = live.http.post(path, headers=headers, **asked)
            assert (reply.status_code, reply.json()["hits"]) == (200, [])
            assert "no user token" in reply.json()["warnings"][0]
            assert live.http.get("/indexes/vault/export", headers=headers).status_code == 403
            assert live.http.put("/indexes/vault", json={}, headers=headers).status_code == 403
            assert live.http.delete("/indexes/vault", headers=headers).status_code == 403
        assert live.http.get("/jobs").json() == {"jobs": []}
        shown = command(home, "index", "delete", "vault")
        assert shown.returncode == 0, shown.stderr
        jobs = live.http.get("/jobs").text
        assert '"vault"' in jobs
        assert '"upload:ann"' not in jobs
        assert SECRET not in command(home, "env", EMBEDSERVE_USER_TOKEN_SECRET=SECRET).stdout
    assert "Traceback" not in live.log(), live.log()


def command(
    home: Path, *arguments: str, stdin: str = "", **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run a command as the owner of a home."""
    return subprocess.run(
        [sys.executable, "-m", "embedserve", *arguments, "--home", str(home)],
        env=environment(**settings),
        cwd=home,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
