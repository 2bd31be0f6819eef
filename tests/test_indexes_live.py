"""Indexes, ingestion and queries on a live server with real documents."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.live import LiveServer

GUIDE = """# Gardening

## Watering
Tomatoes want water in the morning, at the root, and never on the leaves.

## Pruning
Cut suckers below the first truss every week.
"""


@pytest.fixture
def live(emptied: LiveServer) -> LiveServer:
    return emptied


@pytest.fixture
def documents(own_folder: Path) -> Path:
    return own_folder


def test_a_folder_becomes_answers_with_their_place(live: LiveServer, documents: Path) -> None:
    guide = documents / "guide.md"
    guide.write_text(GUIDE, encoding="utf-8")
    job = live.ingest("garden", documents)
    assert (job["status"], job["counts"]) == ("succeeded", {"added": 1})
    assert job["files"][0]["chunks"] == 2
    [hit, *_] = live.query("garden", "When should I water tomatoes?")
    assert hit["text"] == GUIDE[hit["start"] : hit["end"]]
    lines = GUIDE.splitlines()[hit["lines"]["start"] - 1 : hit["lines"]["end"]]
    assert hit["text"] == "\n".join(lines)
    assert "in the morning" in hit["text"]
    assert hit["heading"] == ["Gardening", "Watering"]
    assert hit["document"]["path"] == str(guide)
    assert hit["document"]["title"] == "Gardening"
    assert 0.4 < hit["score"] <= 1
    counts = live.counts("garden")
    assert counts == {
        "documents": 1, "unreadable": 0, "chunks": 2, "vectors": 2, "texts": 2, "reachable": 2,
        "pending": 0,
    }  # fmt: skip


def test_only_what_changed_is_embedded(live: LiveServer, documents: Path) -> None:
    for name in ("a", "b"):
        (documents / f"{name}.md").write_text(GUIDE.replace("Gardening", name), encoding="utf-8")
    first = live.ingest("garden", documents)
    assert first["chunks_embedded"] == 4
    again = live.ingest("garden", documents)
    assert (again["counts"], again["chunks_embedded"]) == ({"unchanged": 2}, 0)
    (documents / "a.md").touch()  # newer, but the same bytes
    touched = live.ingest("garden", documents)
    assert (touched["counts"], touched["chunks_embedded"]) == ({"unchanged": 2}, 0)
    edited = (documents / "a.md").read_text(encoding="utf-8").replace("every week", "every day")
    (documents / "a.md").write_text(edited, encoding="utf-8")
    changed = live.ingest("garden", documents)
    assert changed["counts"] == {"updated": 1, "unchanged": 1}
    assert changed["chunks_embedded"] == 1, "only the edited section"
    hits = live.query("garden", "How often to cut suckers?", k=10)
    assert sum(1 + hit["near_duplicates"] for hit in hits) == 4
    assert sum("every day" in hit["text"] for hit in hits) == 1
    (documents / "a.md").rename(documents / "renamed.md")
    renamed = live.ingest("garden", documents)
    assert renamed["counts"] == {"added": 1, "deleted": 1, "unchanged": 1}
    assert renamed["chunks_embedded"] == 0, "a renamed file costs no embedding"


def test_a_deleted_file_is_gone_from_answers(live: LiveServer, documents: Path) -> None:
    (documents / "keep.md").write_text("# Keep\nApples are red.", encoding="utf-8")
    (documents / "drop.md").write_text("# Drop\nPears are green.", encoding="utf-8")
    live.ingest("fruit", documents)
    assert len(live.query("fruit", "pears", k=10)) == 2
    (documents / "drop.md").unlink()
    assert live.ingest("fruit", documents)["counts"] == {"deleted": 1, "unchanged": 1}
    assert [hit["text"] for hit in live.query("fruit", "pears", k=10)] == [
        "# Keep\nApples are red."
    ]
    assert live.counts("fruit")["reachable"] == 1


def test_files_that_cannot_be_read_have_their_reason(live: LiveServer, documents: Path) -> None:
    (documents / "good.md").write_text("# Good\nIt works.", encoding="utf-8")
    (documents / "guessed.txt").write_bytes("Bœuf à la carte: 12 €.".encode("cp1252"))
    (documents / "nothing.md").write_bytes(b"")
    (documents / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (documents / "broken.docx").write_bytes(b"PK\x03\x04 not really")
    with (documents / "huge.pdf").open("wb") as file:
        file.truncate(200_000_000)
    job = live.ingest("mixed", documents)
    assert job["status"] == "succeeded_with_errors"
    files = {Path(file["path"]).name: file for file in job["files"]}
    assert files["good.md"]["outcome"] == "added"
    for name, outcome, code in [
        ("nothing.md", "skipped", "empty_file"),
        ("picture.png", "skipped", "unsupported"),
        ("broken.docx", "failed", "corrupt"),
        ("huge.pdf", "failed", "too_large"),
    ]:
        assert (files[name]["outcome"], files[name]["code"]) == (outcome, code)
        assert files[name]["message"]
        assert files[name]["chunks"] == 0
    assert "EMBEDSERVE_MAX_FILE_BYTES" in files["huge.pdf"]["hint"]
    assert live.counts("mixed")["unreadable"] == 4
    assert files["guessed.txt"]["outcome"] == "added"
    assert files["guessed.txt"]["warnings"], "the guessed encoding is said"
    second = live.ingest("mixed", documents)
    assert second["counts"] == {"unchanged": 2, "skipped": 2, "failed": 2}
    assert len(live.query("mixed", "does it work?")) == 2


def test_a_chroma_that_dies_is_replaced_and_search_never_stops(
    live: LiveServer, documents: Path
) -> None:
    (documents / "guide.md").write_text(GUIDE, encoding="utf-8")
    live.ingest("garden", documents)
    shutil.rmtree(live.home / "chroma")
    os.kill(json.loads((live.home / "chroma.pid").read_text())["pid"], signal.SIGKILL)
    for _ in range(30):
        assert live.query("garden", "water tomatoes")[0]["heading"] == ["Gardening", "Watering"]
        time.sleep(0.1)
    wait_until_reachable(live, "garden", 2)
    assert live.http.get("/ready").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "error"),
    [
        ("POST", "/indexes/nope/ingest", {"path": "/tmp"}, 404, "Index `nope` does not exist"),
        ("POST", "/indexes/nope/query", {"query": "a"}, 404, "Index `nope` does not exist"),
        ("GET", "/indexes/nope", None, 404, "Index `nope` does not exist"),
        ("DELETE", "/indexes/nope", None, 404, "Index `nope` does not exist"),
        ("GET", "/jobs/nope", None, 404, "nope"),
        ("POST", "/jobs/nope/cancel", {}, 404, "nope"),
        ("PUT", "/indexes/bad%20name", {}, 400, "Index name `bad name` is not valid"),
        ("PUT", "/indexes/x", {"modle": "a"}, 400, "Did you mean `model`?"),
        ("PUT", "/indexes/x", {"chunking": {"max_token": 1}}, 400, "Did you mean `max_tokens`?"),
        ("PUT", "/indexes/x", {"model": "nope"}, 404, 'model "nope" not found'),
        ("PUT", "/indexes/x", {"chunking": {"max_tokens": 5000}}, 400, "takes 256 tokens"),
        ("POST", "/indexes/known/query", {}, 400, "`query`"),
        ("POST", "/indexes/known/query", {"query": 5}, 400, "`query`"),
        ("POST", "/indexes/known/query", {"query": " "}, 400, "The query is empty"),
        ("POST", "/indexes/known/query", {"query": "a", "k": 0}, 400, "between 1 and 1000"),
        ("POST", "/indexes/known/query", {"query": "a", "top": 3}, 400, "`queries`, `k`"),
        ("POST", "/indexes/known/ingest", {}, 400, "no sources"),
        ("POST", "/indexes/known/ingest", {"path": "docs"}, 400, "not an absolute path"),
        ("POST", "/indexes/known/ingest", {"path": "~x/docs"}, 400, "not an absolute path"),
        ("POST", "/indexes/known/ingest", {"path": "/a\0b"}, 400, "not an absolute path"),
        ("POST", "/indexes/known/ingest", {"path": "/" + "x" * 300}, 403, "--allow"),
        ("PUT", "/indexes/x", {"sources": [{"path": "/etc"}]}, 403, "--allow /etc"),
        ("PUT", "/indexes/x", {"sources": [{"path": "docs"}]}, 400, "not an absolute path"),
        ("GET", "/jobs/nope?offset=99999999999999999999", None, 400, "offset"),
        ("POST", "/indexes/known/ingest", {"path": "/etc"}, 403, "--allow /etc"),
        ("POST", "/indexes/known/ingest", {"path": "/no/such"}, 403, "EMBEDSERVE_INGEST_ROOTS"),
        ("POST", "/indexes/known/ingest", {"path": 5}, 400, "`path`"),
    ],
)
def test_bad_requests_say_what_to_do(
    server: LiveServer, method: str, path: str, body: object, status: int, error: str
) -> None:
    server.http.put("/indexes/known", json={}).raise_for_status()
    reply = server.http.request(method, path, json=body)
    assert reply.status_code == status, reply.text
    assert error in reply.json()["error"]


def test_a_path_that_does_not_exist_inside_a_root(server: LiveServer) -> None:
    server.http.put("/indexes/known", json={}).raise_for_status()
    root = server.home.parent / "documents"
    reply = server.http.post("/indexes/known/ingest", json={"path": str(root / "missing")})
    assert reply.status_code == 404
    assert "No such file" in reply.json()["error"]


def test_a_link_that_leads_out_of_the_root_is_refused(live: LiveServer, documents: Path) -> None:
    (documents / "way-out").symlink_to("/etc")
    live.http.put("/indexes/x", json={})
    reply = live.http.post("/indexes/x/ingest", json={"path": str(documents / "way-out")})
    assert reply.status_code == 403


def test_an_index_is_changed_listed_and_deleted(live: LiveServer, documents: Path) -> None:
    assert live.http.put("/indexes/x", json={"description": "first"}).status_code == 201
    changed = live.http.put("/indexes/x", json={"description": "second", "search": {"k": 1}})
    assert (changed.status_code, changed.json()["description"]) == (200, "second")
    (documents / "a.md").write_text("# A\nOne.\n\n# B\nTwo.", encoding="utf-8")
    live.ingest("x", documents)
    live.http.put("/indexes/x", json={"search": {"k": 1}}).raise_for_status()
    reply = live.http.post("/indexes/x/query", json={"query": "one"}).json()
    assert len(reply["hits"]) == 1, "the definition's k"
    refused = live.http.put("/indexes/x", json={"chunking": {"max_tokens": 64}})
    assert refused.status_code == 409
    assert [index["name"] for index in live.http.get("/indexes").json()["indexes"]] == ["x"]
    assert live.http.delete("/indexes/x").status_code == 200
    assert live.http.get("/indexes").json() == {"indexes": [], "problems": {}}
    assert live.ingest("x", documents)["chunks_embedded"] == 0, "vectors are kept by text"


def test_a_job_can_be_cancelled(live: LiveServer, documents: Path) -> None:
    for number in range(60):
        (documents / f"{number}.md").write_text(f"# {number}\n" + f"word{number} " * 60)
    live.http.put("/indexes/big", json={})
    job = live.http.post("/indexes/big/ingest", json={"path": str(documents)}).json()
    assert live.http.post(f"/jobs/{job['id']}/cancel").status_code == 200
    ended = live.wait_for_job(job["id"])
    assert ended["status"] == "cancelled"
    assert ended["progress"]["files_done"] < 60
    resumed = live.ingest("big", documents)
    assert sum(resumed["counts"].values()) == 60
    assert live.counts("big")["documents"] == 60


def test_a_chroma_emptied_while_nothing_ran_is_noticed(home: Path, tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "guide.md").write_text(GUIDE, encoding="utf-8")
    with LiveServer(home, allow=[documents]) as live:
        live.ingest("garden", documents)
    assert live.process.returncode == 0
    shutil.rmtree(home / "chroma")
    with LiveServer(home, allow=[documents]) as again:
        assert len(again.query("garden", "water tomatoes")) == 2
        wait_until_reachable(again, "garden", 2)


def test_a_foreign_chroma_that_comes_back_empty_is_filled_again(home: Path, tmp_path: Path) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "guide.md").write_text(GUIDE, encoding="utf-8")
    chroma = ForeignChroma(tmp_path / "one")
    with LiveServer(home, allow=[documents], arguments=["--chroma-url", chroma.url]) as server:
        server.ingest("garden", documents)
        assert server.counts("garden")["reachable"] == 2
        chroma.kill()
        reply = server.ask("garden", query="tomatoes", passage_tokens=0)
        assert (len(reply["hits"]), reply["exact"]) == (2, True)
        assert "not available" in reply["warnings"][0]
        assert "vector_index" in server.http.get("/ready").text
        again = ForeignChroma(tmp_path / "two", port=chroma.port)
        assert len(server.query("garden", "tomatoes")) == 2
        wait_until_reachable(server, "garden", 2)
        again.kill()


class ForeignChroma:
    """A Chroma server that is not the child of ours."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        if not port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        command = [str(Path(sys.executable).with_name("chroma")), "run", "--host", "127.0.0.1"]
        self.process = subprocess.Popen(
            [*command, "--path", str(folder), "--port", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{self.url}/api/v2/heartbeat", trust_env=False).raise_for_status()
                return
            except httpx.HTTPError:
                time.sleep(0.05)
        self.kill()
        raise TimeoutError("the foreign Chroma did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def wait_until_reachable(server: LiveServer, index: str, count: int) -> None:
    deadline = time.monotonic() + 20
    while server.counts(index)["reachable"] != count:
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.1)
