"""LibreChat's calls of its rag_api, as its sources have them, with tokens as it signs them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from tests.clients.conftest import LIBRECHAT_SECRET, FrontEnd

QUESTION = "What happens to a String when its variable goes out of scope?"
MIN_RELEVANCE = 0.45
"""What LibreChat cuts at unless it is told otherwise."""


class LibreChat:
    """A user of LibreChat, which signs a token of five minutes for each call."""

    def __init__(self, front_end: FrontEnd, user: str) -> None:
        self.user = user
        # One connection for each call, as its client (axios) has it.
        self.http = httpx.Client(
            base_url=f"{front_end.url}/librechat",
            timeout=90,
            trust_env=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def headers(self, secret: str = LIBRECHAT_SECRET, **claims: object) -> dict[str, str]:
        told = {"id": self.user, "exp": int(time.time()) + 300, **claims}
        return {"Authorization": f"Bearer {jwt.encode(told, secret, algorithm='HS256')}"}

    def embed(self, file_id: str, path: Path, **fields: str) -> httpx.Response:
        with path.open("rb") as file:
            return self.http.post(
                "/embed",
                data={"file_id": file_id, **fields},
                files={"file": (path.name, file)},
                headers=self.headers(),
            )

    def query(self, file_id: str, question: str = QUESTION, **asked: Any) -> Any:  # noqa: ANN401
        body = {"file_id": file_id, "query": question, "k": 5, **asked}
        reply = self.http.post("/query", json=body, headers=self.headers())
        assert reply.status_code == 200, reply.text
        return reply.json()

    def cited(self, file_ids: list[str]) -> list[str]:
        """Return the passages that its file search would cite for the question."""
        found = [hit for one in file_ids for hit in self.query(one)]
        found.sort(key=lambda hit: hit[1])
        return [
            hit["page_content"] for hit, distance in found[:10] if 1 - distance >= MIN_RELEVANCE
        ]

    def delete(self, *file_ids: str) -> httpx.Response:
        return self.http.request(
            "DELETE", "/documents", json=list(file_ids), headers=self.headers()
        )


@pytest.fixture(scope="module")
def ann(front_end: FrontEnd) -> Iterator[LibreChat]:
    """A user with two files."""
    user = LibreChat(front_end, "ann")
    for file_id, name in (
        ("f-1", "ch04-01-what-is-ownership.md"),
        ("f-2", "ch03-05-control-flow.md"),
    ):
        reply = user.embed(file_id, front_end.folder / "book" / name)
        assert reply.status_code == 200, reply.text
        assert reply.json() == {
            "status": True,
            "message": "The file can be searched.",
            "file_id": file_id,
            "filename": name,
            "known_type": True,
        }
    yield user
    assert user.delete("f-1", "f-2").status_code == 200
    assert user.http.get("/ids", headers=user.headers()).json() == []


@pytest.fixture
def bob(front_end: FrontEnd) -> Iterator[LibreChat]:
    user = LibreChat(front_end, "bob")
    with user.http:
        yield user


def test_the_right_passage_survives_the_default_cut(ann: LibreChat) -> None:
    cited = ann.cited(["f-1", "f-2"])
    assert any("`drop`" in passage for passage in cited)
    [first, distance] = ann.query("f-1", k=1)[0]
    assert set(first["metadata"]) >= {"file_id", "user_id", "digest", "source"}
    assert first["metadata"]["source"] == "ch04-01-what-is-ownership.md"
    assert 0 <= distance <= 1
    nonsense = ann.query("f-2", "recipes for lemon cake with cream")
    assert all(1 - distance < MIN_RELEVANCE for _, distance in nonsense), "noise is cut"


def test_files_are_asked_together_and_listed(ann: LibreChat) -> None:
    body = {"query": QUESTION, "file_ids": ["f-1", "f-2"], "k": 3}
    reply = ann.http.post("/query_multiple", json=body, headers=ann.headers())
    assert len(reply.json()) == 3
    assert ann.http.get("/ids", headers=ann.headers()).json() == ["f-1", "f-2"]
    whole = ann.http.get("/documents/f-2/context", headers=ann.headers()).json()
    [one] = ann.http.get("/documents", params={"ids": "f-2"}, headers=ann.headers()).json()
    assert whole == one["page_content"]
    assert "Control Flow" in whole
    missing = {"query": QUESTION, "file_ids": ["nope"], "k": 3}
    assert ann.http.post("/query_multiple", json=missing, headers=ann.headers()).status_code == 404
    assert ann.query("nope") == []


def test_a_file_is_its_owners_alone(ann: LibreChat, bob: LibreChat) -> None:
    assert bob.query("f-1") == []
    assert bob.query("f-1", entity_id="bob-agent") == []
    for path in ("/documents?ids=f-1", "/documents/f-1/context"):
        assert bob.http.get(path, headers=bob.headers()).status_code == 404
    assert bob.delete("f-1").status_code == 404
    assert bob.http.get("/ids", headers=bob.headers()).json() == []
    assert ann.query("f-1"), "it is still there"


def test_a_file_of_an_agent_is_found_for_it(
    front_end: FrontEnd, ann: LibreChat, bob: LibreChat
) -> None:
    path = front_end.folder / "book" / "ch09-02-recoverable-errors-with-result.md"
    assert ann.embed("f-3", path, entity_id="agent-1").status_code == 200
    assert bob.query("f-3", entity_id="agent-1"), "whoever uses the agent"
    assert bob.query("f-3") == []
    assert bob.delete("f-3").status_code == 404
    assert ann.delete("f-3").status_code == 200, "who sent it may delete it"
    assert bob.query("f-3", entity_id="agent-1") == []


def test_tokens_are_checked(front_end: FrontEnd, ann: LibreChat) -> None:
    assert ann.http.get("/health").json() == {"status": "UP"}
    forged = {
        "another secret": ann.headers(secret="not-the-secret-of-this-test-0123456789"),
        "old": ann.headers(exp=int(time.time()) - 1),
        "without end": {
            "Authorization": "Bearer " + jwt.encode({"id": "ann"}, LIBRECHAT_SECRET, "HS256")
        },
        "nobody": ann.headers(id=""),
        "unsigned": {
            "Authorization": "Bearer "
            + jwt.encode({"id": "ann", "exp": int(time.time()) + 300}, "", algorithm="none")
        },
        "a key of ours": {"Authorization": "Bearer owner-0123456789"},
        "none": {},
    }
    for name, headers in forged.items():
        reply = ann.http.get("/ids", headers=headers)
        assert (reply.status_code, "detail" in reply.json()) == (401, True), name
    reply = httpx.post(
        f"{front_end.url}/indexes/book/query",
        json={"query": "a"},
        headers=ann.headers(),
        trust_env=False,
    )
    assert reply.status_code == 401, "a token opens nothing else"


def test_files_without_text_are_told_of(
    front_end: FrontEnd, data: Path, ann: LibreChat, tmp_path: Path
) -> None:
    (tmp_path / "noise.bin").write_bytes(bytes(range(256)) * 40)
    reply = ann.embed("f-9", tmp_path / "noise.bin")
    assert reply.json() | {"message": ""} == {
        "status": False,
        "message": "",
        "file_id": "f-9",
        "filename": "noise.bin",
        "known_type": False,
    }
    (tmp_path / "empty.md").write_text("\n \n")
    reply = ann.embed("f-9", tmp_path / "empty.md")
    assert reply.status_code == 400
    assert "empty.md" in reply.json()["detail"]
    ann.delete("f-9")
    assert ann.http.post("/embed", data={"file_id": "x"}, headers=ann.headers()).status_code == 400
    path = data / "docs-markitdown" / "files" / "test.docx"
    with path.open("rb") as file:
        reply = ann.http.post(
            "/text", data={"file_id": "t"}, files={"file": ("a.docx", file)}, headers=ann.headers()
        )
    told = reply.json()
    assert told["known_type"]
    assert "AutoGen" in told["text"]
    assert ann.query("t") == [], "what is read for its text is not kept"
