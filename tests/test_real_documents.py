"""Folders of real documents, from the API to the answer."""

import tomllib
from pathlib import Path

import pytest

from tests.live import LiveServer

EXPECTED = Path(__file__).parent / "expected_documents.toml"


def relative(path: str, folder: Path) -> str:
    return Path(path).relative_to(folder.resolve()).as_posix()


@pytest.mark.data
@pytest.mark.timeout(900)
def test_a_hostile_folder_is_ingested_to_its_end(data: Path, quick_home: Path) -> None:
    folder = data / "docs-tika" / "files"
    files = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    # 840,000 tokens; the real model has the folder of the other test.
    with LiveServer(quick_home, allow=[folder], patience=4) as server:
        job = server.ingest("tika", folder)
        assert job["status"] == "succeeded_with_errors"
        assert sum(job["counts"].values()) == len(files) == job["progress"]["files_total"]
        expected = tomllib.loads(EXPECTED.read_text(encoding="utf-8"))["docs-tika"]
        ends = {relative(file["path"], folder): file["code"] or "text" for file in job["files"]}
        assert ends == dict.fromkeys(ends, "text") | expected
        for file in job["files"]:
            is_read = file["outcome"] == "added"
            assert is_read == (file["chunks"] > 0)
            assert is_read or (file["code"] and file["message"] and file["stage"])
        assert "internal_error" not in {file["code"] for file in job["files"]}
        counts = server.counts("tika")
        assert counts["documents"] == job["counts"]["added"]
        assert counts["chunks"] == counts["vectors"]
        assert counts["texts"] == counts["reachable"]
        assert server.http.get("/ready").status_code == 200
        assert server.ingest("tika", folder)["chunks_embedded"] == 0


@pytest.mark.data
@pytest.mark.timeout(400)
def test_pages_of_a_pdf_are_cited(data: Path, home: Path) -> None:
    folder = data / "docs-markitdown" / "files"
    with LiveServer(home, allow=[folder], patience=2) as server:
        pages_only = {"sources": [{"path": str(folder), "include": ["*.pdf"]}]}
        server.http.put("/indexes/mixed", json=pages_only).raise_for_status()
        job = server.wait_for_job(server.http.post("/indexes/mixed/ingest").json()["id"])
        assert job["counts"]["added"] > 1
        hits = server.query("mixed", "multi-agent conversation framework", k=10)
        assert hits
        assert all(hit["page"] >= 1 for hit in hits)
