"""Documents that are sent to a live server: stored, found, replaced, deleted."""

import json
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.live import LiveServer
from tests.store_samples import wait_until

HOSTILE = "../../../etc/pass wd\\%2e.md"


@pytest.fixture
def live(sources_server: LiveServer) -> LiveServer:
    return sources_server


@pytest.fixture
def index(live: LiveServer) -> Iterator[str]:
    live.http.put("/indexes/sent", json={}).raise_for_status()
    yield "sent"
    live.http.delete("/indexes/sent").raise_for_status()
    assert stored(live) == []


def stored(live: LiveServer) -> list[Path]:
    return [path for path in (live.home / "uploads").rglob("*") if path.is_file()]


def send(live: LiveServer, index: str, **body: object) -> dict[str, Any]:
    reply = live.http.post(f"/indexes/{index}/documents?wait=true", json=body)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def listed(live: LiveServer, index: str, **query: str) -> list[dict[str, Any]]:
    reply = live.http.get(f"/indexes/{index}/documents", params=query)
    assert reply.status_code == 200, reply.text
    found: list[dict[str, Any]] = reply.json()["documents"]
    return found


def test_files_of_a_form_are_found_with_their_metadata(live: LiveServer, index: str) -> None:
    files = [
        ("file", ("guide.md", b"# Port\n\nThe port is 11434.")),
        ("file", (HOSTILE, b"# Tea\n\nGreen tea is brewed at 70 degrees.")),
    ]
    reply = live.http.post(
        f"/indexes/{index}/documents?wait=true", files=files, data={"metadata": '{"team": "a"}'}
    )
    assert reply.status_code == 200, reply.text
    assert reply.json()["job"]["counts"] == {"added": 2}
    [hit] = live.query(index, "how hot should green tea be?", k=1)
    assert hit["document"]["path"] == HOSTILE
    assert hit["document"]["metadata"] == {"team": "a"}
    assert [document["status"] for document in listed(live, index)] == ["indexed"] * 2
    names = {path.name for path in stored(live)}
    assert len(names) == 2
    assert all(len(name) == 35 and name.endswith(".md") for name in names)


def test_a_new_version_takes_the_place_of_the_old_one(live: LiveServer, index: str) -> None:
    first = send(live, index, text="The sky is green.", name="sky.txt", metadata={"v": 1})
    assert first["documents"][0]["chunks"] == 1
    url = f"/indexes/{index}/documents/sky.txt"
    reply = live.http.put(url + '?wait=1&metadata={"v": 2}', content=b"The sky is blue.")
    assert reply.status_code == 200, reply.text
    assert reply.json()["job"]["counts"] == {"updated": 1}
    [hit] = live.query(index, "sky")
    assert (hit["text"], hit["document"]["metadata"]) == ("The sky is blue.", {"v": 2})
    assert hit["document"]["title"] == "sky"
    assert len(stored(live)) == 1
    assert live.http.get(url).json()["metadata"] == {"v": 2}
    # What cannot be read takes the place as well, and says why.
    live.http.put(url + "?wait=1", content=b"\0\1\2" * 100).raise_for_status()
    assert live.http.get(url).json()["status"] == "unreadable"
    assert live.query(index, "sky") == []


def test_a_folders_job_leaves_what_was_sent_alone(live: LiveServer, index: str) -> None:
    folder = live.home.parent / "documents" / "sent"
    folder.mkdir()
    (folder / "a.md").write_text("A file of the folder.")
    send(live, index, text="A text that was sent.", name="sent/a.md")
    assert live.ingest(index, folder)["counts"] == {"added": 1}
    (folder / "a.md").unlink()
    assert live.ingest(index, folder)["counts"] == {"deleted": 1}
    assert [document["path"] for document in listed(live, index)] == ["sent/a.md"]
    # The name of a file of this machine is a name like any other, and never that file.
    (folder / "b.md").write_text("A file of the folder.")
    live.ingest(index, folder)
    send(live, index, text="Another text.", path=str(folder / "b.md"))
    assert {document["source"] for document in listed(live, index, path="*b.md")} == {
        "folder",
        "upload",
    }
    reply = live.http.delete(f"/indexes/{index}/documents/{folder / 'b.md'}")
    assert "brings it back" in reply.json()["warnings"][0]
    (folder / "b.md").unlink()


def test_documents_are_deleted_by_name_and_by_filter(live: LiveServer, index: str) -> None:
    texts = [
        {"text": f"Text {n}.", "name": f"n/{n}.txt", "metadata": {"even": n % 2 == 0, "n": n}}
        for n in range(3)
    ]
    send(live, index, documents=texts)
    url = f"/indexes/{index}/documents"
    assert live.http.delete(f"{url}/n/1.txt").json() == {"deleted": 1, "warnings": []}
    assert live.http.delete(f"{url}/n/1.txt").status_code == 404
    for wanted, count in [
        ({"metadata": {"even": 1}}, 0),
        ({"paths": ["m/*"]}, 0),
        ({"paths": ["n/*"], "not": {"metadata": {"n": {"in": [0, 2]}}}}, 0),
        ({"paths": ["n/*"], "metadata": {"even": True, "n": {"gt": 0.5}}}, 1),
        ({"ids": [int(listed(live, index)[0]["id"])]}, 1),
    ]:
        reply = live.http.post(f"{url}/delete", json={"filter": wanted})
        assert reply.json() == {"deleted": count, "warnings": []}, (wanted, reply.text)
    absent = {"filter": {"metadata": {"tema": "a"}}}
    told = ["No document of the index has metadata `tema`."]
    assert live.http.post(f"{url}/delete", json=absent).json() == {"deleted": 0, "warnings": told}
    assert live.query(index, "text") == []
    assert stored(live) == []
    for nothing in ("{}", '{"filter": {}}', '{"filter": {"path": "*"}}'):
        assert live.http.post(f"{url}/delete", content=nothing).status_code == 400


def test_documents_are_listed_by_filter(live: LiveServer, index: str) -> None:
    texts = [
        {"text": f"Text {n}.", "name": f"{n}.txt", "metadata": {"n": n, "tags": [f"t{n}"]}}
        for n in range(3)
    ]
    send(live, index, documents=texts)
    url = f"/indexes/{index}/documents"
    every = ["0.txt", "1.txt", "2.txt"]
    told = ["No document of the index has metadata `m`."]
    tagged = {"metadata": {"tags": {"contains": "t0"}}}
    for wanted, paths, warnings in [
        ({"metadata": {"n": {"gte": 1}}}, every[1:], []),
        ({"or": [tagged, {"paths": ["2*"]}]}, ["0.txt", "2.txt"], []),
        ({"indexed_at": {"gt": "2100-01-01"}}, [], []),
        ({"metadata": {"m": {"ne": 1}}}, every, told),
    ]:
        reply = live.http.get(url, params={"filter": json.dumps(wanted)}).json()
        assert [document["path"] for document in reply["documents"]] == paths, wanted
        assert reply["warnings"] == warnings
    both = {"filter": '{"metadata": {"n": {"gte": 1}}}', "path": "2*", "source": "upload"}
    assert len(live.http.get(url, params=both).json()["documents"]) == 1
    for wrong in ("{", '{"metadata": {"n": {"over": 1}}}', '{"path": "*"}'):
        reply = live.http.get(url, params={"filter": wrong})
        assert reply.status_code == 400
        assert "`filter" in reply.json()["error"]


def test_limits_hold_and_leave_nothing_behind(live: LiveServer, index: str) -> None:
    url = f"/indexes/{index}/documents"
    large = b"x" * 400_001
    many = [("file", (f"{n}.txt", b"x")) for n in range(4)]
    for status, reply in [
        (413, live.http.put(f"{url}/a.txt", content=large)),
        (413, live.http.post(url, files=[("file", ("a.txt", large))])),
        (413, live.http.post(url, files=many)),
        (413, live.http.post(url, json={"text": "a", "metadata": {"k": "v" * 20_000}})),
        (400, live.http.post(url, json={"text": " "})),
        (400, live.http.post(url, json={"text": "a", "name": "a\0b"})),
        (400, live.http.post(url, json={"text": "a", "metadata": {"k": {"deep": 1}}})),
        (400, live.http.post(url, json={"text": "a", "metadata": {"k": ["a\0"]}})),
        (400, live.http.post(url, files=[("file", ("a", b"x")), ("file", ("a", b"y"))])),
        (400, live.http.post(url, json={})),
        (404, live.http.post("/indexes/nope/documents", json={"text": "a"})),
        (404, live.http.get(f"{url}/nope")),
    ]:
        assert reply.status_code == status, reply.text
        assert reply.json()["error"]
    assert (listed(live, index), stored(live)) == ([], [])


def test_half_a_document_leaves_nothing_behind(live: LiveServer, index: str) -> None:
    address = (live.http.base_url.host, live.http.base_url.port or 0)
    with socket.create_connection(address) as connection:
        head = f"PUT /indexes/{index}/documents/x.txt HTTP/1.1\r\nHost: localhost\r\n"
        connection.sendall(head.encode() + b"Content-Length: 390000\r\n\r\n" + b"x" * 300_000)
        wait_until(lambda: stored(live), within_s=10)
    wait_until(lambda: not stored(live), within_s=10)
    assert "Traceback" not in live.log()


def test_pages_of_documents(live: LiveServer, index: str) -> None:
    send(live, index, documents=[{"text": name, "name": name} for name in ("c", "a", "b")])
    page = live.http.get(f"/indexes/{index}/documents?limit=2").json()
    assert [document["path"] for document in page["documents"]] == ["a", "b"]
    rest = live.http.get(f"/indexes/{index}/documents?limit=2&offset={page['next_offset']}").json()
    assert ([d["path"] for d in rest["documents"]], rest["next_offset"]) == (["c"], None)


def test_a_killed_server_ingests_what_it_had_taken(home: Path) -> None:
    with LiveServer(home) as live:
        live.http.put("/indexes/x", json={}).raise_for_status()
        reply = live.http.post("/indexes/x/documents", json={"text": "Kept.", "name": "kept.md"})
        assert reply.status_code == 202
        live.kill()
    [kept] = stored(live)
    (kept.parent / ".incoming-cut").write_bytes(b"half")
    (kept.parent / "nobodys.md").write_bytes(b"replaced long ago")
    with LiveServer(home) as live:
        job = live.wait_for_job(reply.json()["job"]["id"])
        assert job["status"] == "succeeded"
        assert [hit["text"] for hit in live.query("x", "kept")] == ["Kept."]
        assert stored(live) == [kept]
    with closing(sqlite3.connect(home / "catalog.sqlite3")) as connection:
        assert connection.execute("SELECT job_id FROM uploads").fetchall() == [(None,)]
        [metadata] = connection.execute("SELECT metadata FROM documents").fetchone()
        assert json.loads(metadata) == {}


def test_only_the_uploads_that_failed_are_tried_again(live: LiveServer, index: str) -> None:
    files = [
        ("file", ("good.md", b"# Good")),
        ("file", ("bad.docx", b"PK\x03\x04 this is no archive")),
    ]
    first = live.http.post(f"/indexes/{index}/documents?wait=true", files=files).json()["job"]
    assert first["counts"] == {"added": 1, "failed": 1}
    reply = live.http.post(f"/jobs/{first['id']}/retry")
    assert reply.status_code == 202, reply.text
    job = live.wait_for_job(reply.json()["id"])
    assert [file["path"] for file in job["files"]] == ["bad.docx"]
    assert (job["counts"], job["path"], job["retry_of"]) == ({"failed": 1}, "upload:", first["id"])
    progress = job["progress"]
    assert progress["files_done"] == progress["files_total"] == 1
    assert progress["bytes_done"] == progress["bytes_total"] == len(files[1][1][1])
