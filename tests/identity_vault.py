"""A server with a protected index, its users, and what each of them may see."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import jwt

from tests.live import LiveServer
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


@contextmanager
def open_vault(model_home: Path, folder: Path) -> Iterator[Vault]:
    """Serve it with a quick model; in the end its log must hold no failure and no secret."""
    home = folder / "home"
    install_quick(model_home, home)
    with language_models() as theirs:
        settings = {
            "EMBEDSERVE_API_KEYS": f"read:{READER},read+ingest:{WRITER},admin:{ADMIN}",
            "EMBEDSERVE_USER_TOKEN_SECRET": SECRET,
            "EMBEDSERVE_LIBRECHAT_SECRET": LIBRECHAT_SECRET,
            "EMBEDSERVE_CHAT_UPSTREAMS": f"cloud={theirs.url}/v1",
            "EMBEDSERVE_LOG_LEVEL": "debug",
        }
        with LiveServer(home, settings=settings) as live:
            found = Vault(live, theirs)
            fill(found)
            yield found
    assert "Traceback" not in live.log(), live.log()
    assert SECRET not in live.log()
    assert "signed=" not in live.log()


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
