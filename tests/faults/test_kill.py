"""`kill -9` of the server at random moments of an ingestion; then everything must be there, once.

For a longer run: `scripts/test tests/faults --kill-rounds 100 --kill-seed 7`.
"""

import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from embedserve.store.catalog import Catalog
from embedserve.store.chroma import ChromaIndex
from embedserve.store.chroma_process import ChromaProcess
from tests.live import LiveServer

# A twin has the same vector and may be found instead; float32 rounding on both sides.
SAME_VECTOR_SCORE = 0.9999


@pytest.mark.data
@pytest.mark.timeout(3600)
def test_an_ingestion_survives_kills(
    data: Path, home: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    rounds: int = request.config.getoption("--kill-rounds")
    chance = random.Random(request.config.getoption("--kill-seed"))
    documents = tmp_path / "documents"
    source = data / "docs-rust-book" / "files"
    shutil.copytree(source / "src", documents / "src", ignore=shutil.ignore_patterns("*.svg"))
    for word_file in sorted((source / "nostarch" / "docx").glob("chapter0*.docx"))[:4]:
        shutil.copy(word_file, documents)
    expected = {str(path) for path in documents.rglob("*") if path.suffix in (".md", ".docx")}

    job_id = ""
    for _ in range(rounds):
        server = LiveServer(home, allow=[documents])
        if not job_id:
            server.http.put("/indexes/book", json={}).raise_for_status()
            reply = server.http.post("/indexes/book/ingest", json={"path": str(documents)})
            job_id = reply.json()["id"]
        time.sleep(chance.uniform(0, 1.5))
        server.kill()
        wait_until_nothing_runs_in(home)

    with LiveServer(home, allow=[documents]) as server:
        job = server.wait_for_job(job_id)  # it goes on by itself
        assert job["status"] == "succeeded", job
        assert job["counts"] == {"added": len(expected)}
        assert {file["path"] for file in job["files"]} == expected
        counts = server.counts("book")
        assert counts["documents"] == len(expected)
        assert counts["chunks"] == counts["vectors"] > 1000
        assert counts["texts"] == counts["reachable"] > 1000
        assert counts["pending"] == 0
        assert server.ingest("book", documents)["chunks_embedded"] == 0
        best = [
            Path(hit["document"]["path"]).stem
            for hit in server.query("book", "What is ownership?", k=3)
        ]
        assert {"ch04-01-what-is-ownership", "chapter04"} & set(best)
    wait_until_nothing_runs_in(home)
    assert_every_chunk_finds_itself(home)


def wait_until_nothing_runs_in(home: Path) -> None:
    """Wait until no process has the home in its command line: no orphans."""
    deadline = time.monotonic() + 10
    while left := processes_of(home):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.02)


def processes_of(home: Path) -> list[str]:
    commands = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue  # it ended while we looked
            if str(home) in command and state != "Z":
                commands.append(f"{entry.name} {command}")
    return commands


def assert_every_chunk_finds_itself(home: Path) -> None:
    chroma = ChromaProcess(home / "chroma", home / "chroma.log", timeout_s=30)
    chroma.start()
    try:
        with Catalog(home / "catalog.sqlite3") as catalog:
            prefix = f"embedserve-{catalog.id}"
            index_of_vectors = ChromaIndex(lambda: chroma.url, timeout_s=30, prefix=prefix)
            index = catalog.indexes.get("book")
            stored = index_of_vectors.ids(index.id)
            live = catalog.chunks.representatives(index.id)
            assert np.array_equal(stored, live), "no chunk missing, no orphan vector"
            every = catalog.chunks.vectors_of(index, live.tolist())
            for chunk_id, vector in zip(every.ids.tolist(), every.vectors, strict=True):
                hits = index_of_vectors.search(index.id, vector, count=5)
                assert hits[0].score >= SAME_VECTOR_SCORE, chunk_id
            index_of_vectors.close()
    finally:
        chroma.stop()
