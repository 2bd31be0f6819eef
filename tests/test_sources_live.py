"""Sources and roots on a live server: what may be read, and who owns a file."""

from pathlib import Path

import pytest

from tests.live import LiveServer


def fill(folder: Path) -> Path:
    for name in ("a.md", "b.md", "c.txt", "sub/d.md", "sub/e.txt"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\nThe text of {name}.", encoding="utf-8")
    return folder


@pytest.fixture
def documents(own_folder: Path) -> Path:
    """Five files that the file's server may read."""
    return fill(own_folder)


@pytest.fixture
def own_documents(tmp_path: Path) -> Path:
    """Five files for a server of the test's own."""
    return fill(tmp_path / "documents")


@pytest.fixture
def live(emptied: LiveServer) -> LiveServer:
    return emptied


def put(live: LiveServer, *sources: dict[str, object]) -> None:
    live.http.put("/indexes/x", json={"sources": list(sources)}).raise_for_status()


def run(live: LiveServer) -> dict[str, int]:
    reply = live.http.post("/indexes/x/ingest")
    assert reply.status_code == 202, reply.text
    counts: dict[str, int] = live.wait_for_job(reply.json()["id"])["counts"]
    return counts


def test_sources_over_one_folder_share_it(live: LiveServer, documents: Path) -> None:
    put(
        live,
        {"path": str(documents), "include": ["*.md"]},
        {"path": str(documents), "include": ["*.txt"]},
    )
    assert run(live) == {"added": 5}
    assert run(live) == {"unchanged": 5}
    assert live.counts("x")["documents"] == 5


def test_a_source_inside_another_is_not_deleted_by_it(live: LiveServer, documents: Path) -> None:
    put(live, {"path": str(documents), "exclude": ["sub/"]}, {"path": str(documents / "sub")})
    assert run(live) == {"added": 5}
    assert run(live) == {"unchanged": 5}
    (documents / "sub" / "d.md").unlink()
    assert run(live) == {"unchanged": 4, "deleted": 1}


def test_a_source_with_dots_and_links_is_the_folder_it_leads_to(
    live: LiveServer, documents: Path
) -> None:
    (documents / "sub" / "way").symlink_to(documents)
    put(live, {"path": f"{documents}/sub/../sub/way"})
    first = run(live)
    assert first["added"] == 5
    (documents / "a.md").unlink()
    assert run(live) == {"unchanged": 4, "deleted": 1}


def test_a_path_inside_a_source_follows_the_rules_of_the_source(
    live: LiveServer, documents: Path
) -> None:
    put(live, {"path": str(documents), "exclude": ["*.txt"]})
    assert live.wait_for_job(
        live.http.post("/indexes/x/ingest", json={"path": str(documents / "sub")}).json()["id"]
    )["counts"] == {"added": 1}
    assert run(live) == {"added": 2, "unchanged": 1}


def test_a_source_that_is_gone_keeps_its_documents(live: LiveServer, documents: Path) -> None:
    put(live, {"path": str(documents / "sub")})
    assert run(live) == {"added": 2}
    (documents / "sub").rename(documents / "elsewhere")
    assert run(live) == {"failed": 1, "unchanged": 2}
    assert live.counts("x")["documents"] == 2
    (documents / "elsewhere").rename(documents / "sub")
    assert run(live) == {"unchanged": 2}


def test_a_root_that_was_withdrawn_is_not_read_again(quick_home: Path, own_documents: Path) -> None:
    with LiveServer(quick_home, allow=[own_documents]) as wider:
        put(wider, {"path": str(own_documents)})
        assert run(wider) == {"added": 5}
    with LiveServer(quick_home) as narrower:
        reply = narrower.http.post("/indexes/x/ingest")
        job = narrower.wait_for_job(reply.json()["id"])
        assert job["status"] == "failed"
        assert "--allow" in job["error"]


def test_a_tiny_queue_slows_ingestion_down_and_fails_nothing(
    home: Path, own_documents: Path
) -> None:
    for number in range(12):  # 10,000 tokens
        text = "\n\n".join(f"Paragraph {number} {part} " + "word " * 60 for part in range(13))
        (own_documents / f"{number}.md").write_text(text, encoding="utf-8")
    settings = {"EMBEDSERVE_QUEUE_TOKENS": "3000"}
    with LiveServer(home, allow=[own_documents], settings=settings) as server:
        assert server.ingest("x", own_documents)["counts"] == {"added": 17}


def test_a_file_that_vanishes_before_it_is_read_says_so(live: LiveServer, documents: Path) -> None:
    (documents / "a.md").unlink()
    (documents / "a.md").symlink_to(documents / "nothing")
    job = live.ingest("x", documents)
    [problem] = [file for file in job["files"] if file["code"]]
    assert problem["code"] == "broken_link"


def test_a_missing_model_delays_a_definition_only_until_it_is_there(
    quick_models: Path, own_documents: Path, tmp_path: Path
) -> None:
    definitions = tmp_path / "indexes"
    definitions.mkdir()
    (definitions / "manual.toml").write_text(f'[[sources]]\npath = "{own_documents}"\n')
    settings = {"EMBEDSERVE_DEFINITIONS": str(definitions)}
    home = tmp_path / "bare"
    with LiveServer(home, settings=settings) as server:
        listed = server.http.get("/indexes").json()
        assert listed["indexes"] == []
        assert "try pulling it first" in listed["problems"]["manual"]
        refused = server.http.get("/indexes/manual")
        assert refused.status_code == 409
        assert "try pulling it first" in refused.json()["error"]
        (home / "models").symlink_to(quick_models)
        reply = server.http.post("/indexes/manual/ingest")
        assert server.wait_for_job(reply.json()["id"])["counts"] == {"added": 5}
        assert server.http.get("/indexes").json()["problems"] == {}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "app://obsidian.md"}, 200),
        ({"Host": "localhost:11434"}, 200),
        ({}, 200),
    ],
)
def test_pages_of_other_sites_are_kept_out(
    server: LiveServer, headers: dict[str, str], status: int
) -> None:
    reply = server.http.get("/api/version", headers=headers)
    assert reply.status_code == status
    if status == 403:
        assert "EMBEDSERVE_ALLOWED_ORIGINS" in reply.json()["error"]


def test_a_folder_with_too_many_files_is_taken_in_part_and_loses_nothing(
    quick_home: Path, own_documents: Path
) -> None:
    settings = {"EMBEDSERVE_MAX_SOURCE_FILES": "3"}
    with LiveServer(quick_home, allow=[own_documents], settings=settings) as live:
        put(live, {"path": str(own_documents)})
        assert run(live) == {"added": 3, "failed": 1}
        (own_documents / "0.md").write_text("first by name")
        assert run(live) == {"added": 1, "unchanged": 3, "failed": 1}
        [job] = live.http.get("/jobs?limit=1").json()["jobs"]
        [file] = live.http.get(f"/jobs/{job['id']}?outcome=failed").json()["files"]
        assert file["code"] == "too_many"
