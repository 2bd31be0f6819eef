"""Jobs on a live server: followed, cancelled, tried again, foretold."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from embedserve.api.job_events import JobFeeds, events
from embedserve.services.job_progress import JobReport
from embedserve.types import Job
from tests.live import LiveServer

GUIDE = "# Watering\n\nWater the tomatoes in the morning.\n"


@pytest.fixture
def folder(server: LiveServer) -> Path:
    """A folder of its own below what the shared server may ingest."""
    found = server.home.parent / "documents" / uuid4().hex
    found.mkdir(parents=True)
    return found


@pytest.fixture
def index(server: LiveServer) -> Iterator[str]:
    name = f"jobs-{uuid4().hex[:8]}"
    server.http.put(f"/indexes/{name}", json={}).raise_for_status()
    yield name
    server.http.delete(f"/indexes/{name}").raise_for_status()


def begin(server: LiveServer, index: str, path: Path) -> str:
    reply = server.http.post(f"/indexes/{index}/ingest", json={"path": str(path)})
    assert reply.status_code == 202, reply.text
    return str(reply.json()["id"])


def followed(server: LiveServer, job_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Return every event of a job by name, to the end of the stream."""
    headers = {"Last-Event-ID": "99"}
    with server.http.stream("GET", f"/jobs/{job_id}/events", headers=headers) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        frames = reply.read().decode().strip().split("\n\n")
    lines = [dict(line.split(": ", 1) for line in frame.split("\n")) for frame in frames]
    return [(line["event"], json.loads(line["data"])) for line in lines]


def test_a_job_is_followed_to_its_end_and_told_afterwards(
    server: LiveServer, index: str, folder: Path
) -> None:
    for number in range(30):
        (folder / f"{number}.md").write_text(f"# {number}\n\n" + f"plant{number} water " * 40)
    job_id = begin(server, index, folder)
    seen = followed(server, job_id)
    assert [name for name, _ in seen[:-1]] == ["state"] * (len(seen) - 1)
    name, last = seen[-1]
    assert (name, last["status"], last["counts"]) == ("end", "succeeded", {"added": 30})
    progress = last["progress"]
    assert progress["bytes_done"] == progress["bytes_total"] > 30 * 40
    assert progress["tokens"] > progress["chunks"] >= 30
    assert [name for name, _ in followed(server, job_id)] == ["end"]
    assert server.http.get("/jobs/nope/events").status_code == 404


def test_only_what_failed_is_tried_again(server: LiveServer, index: str, folder: Path) -> None:
    (folder / "good.md").write_text(GUIDE)
    (folder / "bad.docx").write_bytes(b"PK\x03\x04 this is no archive")
    first = server.wait_for_job(begin(server, index, folder))
    assert (first["status"], first["counts"]) == (
        "succeeded_with_errors",
        {"added": 1, "failed": 1},
    )
    (folder / "new.md").write_text("# Not asked for\n\nnothing\n")
    # Not retryable, and as it was: only a retry reads it again.
    again = server.http.post(f"/jobs/{first['id']}/retry")
    assert again.status_code == 202
    second = server.wait_for_job(again.json()["id"])
    assert (second["retry_of"], second["counts"]) == (first["id"], {"failed": 1})
    assert second["progress"]["bytes_total"] == (folder / "bad.docx").stat().st_size
    assert [file["path"] for file in second["files"]] == [str(folder / "bad.docx")]
    (folder / "bad.docx").unlink()
    third = server.http.post(f"/jobs/{second['id']}/retry").json()
    assert server.wait_for_job(third["id"])["counts"] == {"deleted": 1}
    refused = server.http.post(f"/jobs/{third['id']}/retry")
    assert (refused.status_code, server.counts(index)["documents"]) == (409, 1)


def test_a_dry_run_tells_and_writes_nothing(server: LiveServer, index: str, folder: Path) -> None:
    def dry(name: str) -> dict[str, Any]:
        body = {"path": str(folder), "dry_run": True}
        reply = server.http.post(f"/indexes/{name}/ingest", json=body)
        assert reply.status_code == 200, reply.text
        told: dict[str, Any] = reply.json()
        return told

    for name in ("same", "changed", "gone"):
        (folder / f"{name}.md").write_text(GUIDE + name)
    (folder / "empty.md").touch()
    assert dry("no-such-index")["counts"] == {"added": 4}
    assert server.http.get("/indexes/no-such-index").status_code == 404
    server.wait_for_job(begin(server, index, folder))
    (folder / "changed.md").write_text(GUIDE + "now longer")
    (folder / "gone.md").unlink()
    (folder / "new.md").write_text(GUIDE)
    before = server.counts(index)
    told = dry(index)
    assert told["counts"] == {"unchanged": 1, "added": 1, "updated": 1, "deleted": 1, "skipped": 1}
    by_path = {Path(file["path"]).stem: file for file in told["files"]}
    assert {name: file["outcome"] for name, file in by_path.items()} == {
        "new": "added",
        "changed": "updated",
        "gone": "deleted",
        "empty": "skipped",
    }
    assert by_path["empty"]["code"] == "empty_file"
    assert server.counts(index) == before
    jobs = server.http.get("/jobs", params={"index": index}).json()["jobs"]
    assert len(jobs) == 1


def test_a_renamed_file_keeps_its_document(server: LiveServer, index: str, folder: Path) -> None:
    (folder / "watering.md").write_text(GUIDE)
    (folder / "plain.txt").write_text("Its title is its name, which was embedded as well.")
    server.wait_for_job(begin(server, index, folder))
    before = server.query(index, "water tomatoes")[0]["document"]["id"]
    (folder / "watering.md").rename(folder / "renamed.md")
    (folder / "plain.txt").rename(folder / "other.txt")
    job = server.wait_for_job(begin(server, index, folder))
    assert job["counts"] == {"added": 2, "deleted": 2}
    assert job["chunks_embedded"] == 1, "the new title of other.txt"
    hit = server.query(index, "water tomatoes")[0]["document"]
    assert (hit["id"], hit["path"]) == (before, str(folder / "renamed.md"))


def test_a_job_is_cancelled_within_a_large_file(
    server: LiveServer, index: str, folder: Path
) -> None:
    words = " ".join(f"word{number}" for number in range(200_000))
    (folder / "large.txt").write_text(words)
    job_id = begin(server, index, folder)
    deadline = time.monotonic() + 30
    while server.http.get(f"/jobs/{job_id}").json()["progress"]["stage"] != "reading":
        assert time.monotonic() < deadline
    time.sleep(0.5)  # in extraction, in chunking or in the engine: each is left
    asked = time.monotonic()
    server.http.post(f"/jobs/{job_id}/cancel")
    ended = server.wait_for_job(job_id)
    assert ended["status"] == "cancelled"
    assert time.monotonic() - asked < 3, "a second on a machine that does nothing else"
    assert ended["counts"] == {}


class FakeIngestion:
    """Jobs that stay as they are; counts how often it is asked."""

    def __init__(self) -> None:
        self.is_stopping = False
        self.asked = 0

    def report(self, job_id: str) -> JobReport:
        self.asked += 1
        return JobReport(Job(job_id, "notes", "/d", "running", "then", files_total=self.asked))


def test_many_watchers_share_one_reader_which_ends_with_the_last_of_them() -> None:
    async def watch() -> None:
        ingestion = FakeIngestion()
        feeds = JobFeeds(ingestion)  # type: ignore[arg-type]  # all that it uses
        watchers: list[AsyncIterator[bytes]] = [events(feeds, "a") for _ in range(50)]
        for _ in range(2):
            frames = await asyncio.gather(*(anext(watcher) for watcher in watchers))
            assert len(set(frames)) == 1
        assert ingestion.asked <= 3
        for watcher in watchers:
            await watcher.aclose()  # type: ignore[attr-defined]
        asked = ingestion.asked
        await asyncio.sleep(0.7)
        assert ingestion.asked <= asked + 1

    asyncio.run(watch())


def test_a_silent_feed_says_that_it_is_there_and_a_stopping_server_lets_go() -> None:
    class Still(FakeIngestion):
        def report(self, job_id: str) -> JobReport:
            return JobReport(Job(job_id, "notes", "/d", "queued", "then"))

    async def watch() -> None:
        ingestion = Still()
        watcher = events(JobFeeds(ingestion), "a", heartbeat_s=0.05)  # type: ignore[arg-type]
        assert (await anext(watcher)).startswith(b"id: 1\nevent: state\ndata: {")
        assert (await anext(watcher)).startswith(b":")
        ingestion.is_stopping = True
        assert [frame async for frame in watcher if not frame.startswith(b":")] == []

    asyncio.run(watch())
