"""Index care on a live server: check, repair, rebuild, vacuum, archives and backups."""

import json
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.live import LiveServer, environment

QUESTION = "Which note is about number 7?"


@pytest.fixture(scope="module")
def live(model_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with an index `notes` of forty documents."""
    folder = tmp_path_factory.mktemp("care")
    (folder / "home").mkdir()
    (folder / "home" / "models").symlink_to(model_home / "models")
    (folder / "documents").mkdir()
    for number in range(40):
        (folder / "documents" / f"{number}.md").write_text(f"A note about number {number}.\n")
    with LiveServer(folder / "home", allow=[folder / "documents"]) as server:
        assert server.ingest("notes", folder / "documents")["counts"] == {"added": 40}
        yield server
    assert "Traceback" not in server.log(), server.log()


def command(home: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Run the command line and return its status and what it printed as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "embedserve", *words, "--home", str(home), "--json"],
        cwd=home.parent, env=environment(), capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout) if done.stdout else {"error": done.stderr}


def lines(live: LiveServer, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    reply = live.http.post(path, json=body)
    assert reply.status_code == 200, reply.text
    return [json.loads(line) for line in reply.text.splitlines()]


def vectors(home: Path) -> list[tuple[str, bytes]]:
    with closing(sqlite3.connect(home / "catalog.sqlite3")) as connection:
        return connection.execute(
            "SELECT text_hash, vector FROM vectors ORDER BY text_hash"
        ).fetchall()


def change(home: Path, sql: str) -> None:
    with closing(sqlite3.connect(home / "catalog.sqlite3", timeout=20)) as connection, connection:
        connection.execute(sql)


def test_a_whole_index_is_found_whole(live: LiveServer) -> None:
    *steps, report = lines(live, "/indexes/notes/check", {})
    assert {"reading the catalog's file", "comparing the vector index"} <= {
        step["status"] for step in steps
    }
    assert report["status"] == "ok"
    assert (report["stored"], report["sampled"], report["counts"]["vectors"]) == (40, 40, 40)
    assert live.http.post("/indexes/none/check").status_code == 404
    assert live.http.post("/indexes/notes/check", json={"repairs": 1}).status_code == 400


def test_lost_vectors_are_found_and_embedded_again_to_the_last_bit(live: LiveServer) -> None:
    before = vectors(live.home)
    change(live.home, f"DELETE FROM vectors WHERE text_hash = '{before[0][0]}'")
    change(live.home, f"UPDATE vectors SET vector = x'00' WHERE text_hash = '{before[1][0]}'")
    status, report = command(live.home, "index", "check", "notes")
    assert status == 1
    assert [(fault["code"], fault["count"]) for fault in report["faults"]] == [("bad_vectors", 2)]
    assert vectors(live.home) != before
    status, report = command(live.home, "index", "check", "notes", "--repair")
    assert (status, report["status"]) == (0, "repaired"), report
    assert [fault["code"] for fault in report["repaired"]] == ["bad_vectors"]
    assert vectors(live.home) == before


def test_a_vector_index_that_differs_is_put_right(live: LiveServer) -> None:
    # The catalog forgets a chunk without telling: the vector index then holds one too many.
    change(live.home, "DELETE FROM documents WHERE path LIKE '%/39.md'")
    change(live.home, "DELETE FROM chunks WHERE document_id NOT IN (SELECT id FROM documents)")
    *_, report = lines(live, "/indexes/notes/check", {})
    assert {fault["code"] for fault in report["faults"]} == {"extra", "text_extra"}
    assert report["unused_vectors"] == 1
    *_, report = lines(live, "/indexes/notes/check", {"repair": True})
    assert (report["status"], report["stored"]) == ("repaired", 39)


def test_queries_are_answered_from_the_index_while_it_is_rebuilt(live: LiveServer) -> None:
    expected = [hit["text"] for hit in live.query("notes", QUESTION)]
    is_over, answers = Event(), []

    def ask() -> None:
        while not is_over.is_set():
            reply = live.http.post("/indexes/notes/query", json={"query": QUESTION}).json()
            answers.append((reply["exact"], [hit["text"] for hit in reply["hits"]]))

    thread = Thread(target=ask)
    thread.start()
    try:
        for _ in range(2):
            *_, last = lines(live, "/indexes/notes/rebuild", {})
            assert last == {"status": "success", "done": 39, "total": 39}
    finally:
        is_over.set()
        thread.join()
    assert answers
    assert all(texts == expected for _, texts in answers)
    assert sum(exact for exact, _ in answers) <= 2, "only where a switch met a query"
    *_, report = lines(live, "/indexes/notes/check", {})
    assert (report["status"], report["stored"]) == ("ok", 39)


def test_a_vacuum_deletes_what_no_chunk_has_and_shrinks_the_file(live: LiveServer) -> None:
    kept = len(vectors(live.home)) - 1
    change(
        live.home,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)"
        " INSERT INTO vectors SELECT 'old', i, zeroblob(1536) FROM n",
    )
    *_, last = lines(live, "/vacuum", {})
    assert last["status"] == "success"
    assert last["vectors_deleted"] == 3001
    assert last["bytes_after"] < last["bytes_before"] - 3000 * 1536
    assert len(vectors(live.home)) == kept
    assert (live.home / "catalog.sqlite3").stat().st_size == last["bytes_after"]


def test_an_index_travels_through_a_file(live: LiveServer, tmp_path: Path) -> None:
    file = tmp_path / "notes.zip"
    status, result = command(live.home, "index", "export", "notes", str(file))
    assert (status, result["bytes"]) == (0, file.stat().st_size), result
    assert command(live.home, "index", "export", "notes", str(file))[0] == 1, "it exists"
    status, index = command(live.home, "index", "import", str(file), "--name", "copy")
    assert (status, index["counts"]["chunks"]) == (0, 39), index
    assert live.query("copy", QUESTION)[0]["text"] == live.query("notes", QUESTION)[0]["text"]
    content = bytearray(file.read_bytes())
    assert live.http.post("/indexes/import", content=bytes(content)).status_code == 409
    content[len(content) // 2] ^= 1
    reply = live.http.post("/indexes/import?name=third", content=bytes(content))
    assert reply.status_code == 400
    assert live.http.get("/indexes/third").status_code == 404
    assert live.http.delete("/indexes/copy").status_code == 200
    assert not [path for path in tmp_path.iterdir() if path != file]


def test_an_index_of_another_build_is_embedded_anew(live: LiveServer) -> None:
    before = vectors(live.home)
    change(live.home, f"UPDATE indexes SET artefact = '{'f' * 64}'")
    change(live.home, f"UPDATE vectors SET artefact = '{'f' * 64}'")
    reply = live.http.post("/indexes/notes/query", json={"query": QUESTION})
    assert reply.status_code == 409
    assert "index reembed notes" in reply.json()["error"]
    status, index = command(live.home, "index", "reembed", "notes")
    assert (status, index["change"], index["counts"]["vectors"]) == (0, None, 39), index
    job = live.http.get("/jobs").json()["jobs"][0]
    assert (job["kind"], job["chunks_embedded"]) == ("reembed", 39)
    assert "number 7" in live.query("notes", QUESTION)[0]["text"]
    live.http.post("/vacuum").raise_for_status()
    assert [row for row in before if row in vectors(live.home)] == vectors(live.home)


def test_a_home_made_of_a_backup_answers_the_same(live: LiveServer, tmp_path: Path) -> None:
    expected = live.query("notes", QUESTION)
    file = tmp_path / "backup.tar"
    status, result = command(live.home, "backup", str(file))
    assert (status, result["left_out"]) == (0, ["chroma"]), result
    assert command(live.home, "backup", str(file))[0] == 1, "it exists"
    assert [path.name for path in tmp_path.iterdir()] == ["backup.tar"]
    home = tmp_path / "restored"
    with tarfile.open(file) as archive:
        archive.extractall(home, filter="data")
    contents = json.loads((home / "backup.json").read_bytes())
    assert "catalog.sqlite3" in contents["files"]
    assert any(name.endswith("model.onnx") for name in contents["files"])
    with LiveServer(home) as restored:
        *_, report = lines(restored, "/indexes/notes/check", {"repair": True})
        assert report["faults"] == []
        assert report["stored"] == 39
        assert restored.query("notes", QUESTION) == expected
