"""A long text through a live server: streamed, killed, resumed, found."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.live import JOB_S, LiveServer

NEEDLE = "The heron of Vellamo keeps its seventh silver key beneath the lighthouse."
PARAGRAPHS = [
    f"Paragraph {number}. " + "Rivers carry stones to the sea, and the sea carries them back. " * 6
    for number in range(40)
]
TEXT = "\n\n".join([*PARAGRAPHS * 40, NEEDLE, *PARAGRAPHS])
SETTINGS = {"EMBEDSERVE_STREAM_ABOVE_BYTES": "20000"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "long.txt").write_text(TEXT)
    return folder


def wait_for_part(server: LiveServer, job_id: str) -> None:
    """Return once some of the file is staged and it is not committed yet."""
    deadline = time.monotonic() + JOB_S
    while time.monotonic() < deadline:
        job: dict[str, Any] = server.http.get(f"/jobs/{job_id}").json()
        if job["progress"]["bytes_done"]:
            return
        time.sleep(0.01)
    raise AssertionError(server.log())


def test_a_long_text_is_streamed_resumed_after_a_kill_and_found(home: Path, folder: Path) -> None:
    with LiveServer(home, allow=[folder], settings=SETTINGS) as server:
        server.http.put("/indexes/long", json={}).raise_for_status()
        started = server.http.post("/indexes/long/ingest", json={"path": str(folder)})
        job_id = started.raise_for_status().json()["id"]
        wait_for_part(server, job_id)
        server.kill()
    with LiveServer(home, allow=[folder], settings=SETTINGS) as server:
        job = server.wait_for_job(job_id)
        assert (job["status"], job["counts"]) == ("succeeded", {"added": 1})
        assert job["progress"]["bytes_done"] == job["progress"]["bytes_total"] == len(TEXT.encode())
        asked = {"query": NEEDLE, "k": 1, "passage_tokens": 0}
        answer = server.http.post("/indexes/long/query", json=asked).json()
        [hit] = answer["hits"]
        assert NEEDLE in hit["text"]
        assert TEXT[hit["start"] : hit["end"]] == hit["text"]
        assert not list(home.glob(".text-*"))
        second = server.ingest("long", folder)
        assert second["counts"] == {"unchanged": 1}
