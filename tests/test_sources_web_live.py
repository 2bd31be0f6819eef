"""Addresses, sitemaps and watched folders as sources of an index on a live server."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live import LiveServer, environment
from tests.small_site import Page, Site, serving
from tests.store_samples import wait_until


@pytest.fixture
def live(sources_server: LiveServer) -> LiveServer:
    return sources_server


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as found:
        yield found


def run(live: LiveServer, index: str, *sources: dict[str, object]) -> dict[str, Any]:
    live.http.put(f"/indexes/{index}", json={"sources": list(sources)}).raise_for_status()
    reply = live.http.post(f"/indexes/{index}/ingest")
    assert reply.status_code == 202, reply.text
    return live.wait_for_job(reply.json()["id"])


def test_addresses_are_fetched_and_kept_in_step(live: LiveServer, site: Site) -> None:
    site.put("/tea", "<title>Tea</title><p>Green tea is brewed at 70 degrees.", ETag='"1"')
    site.put("/port", "<p>The port is 11434.")
    source: dict[str, object] = {"urls": [f"{site.url}/{name}" for name in ("tea", "port", "no")]}
    job = run(live, "web", source)
    assert job["counts"] == {"added": 2, "failed": 1}
    assert {file["code"] for file in job["files"]} == {None, "not_found"}
    [hit] = live.query("web", "how hot is tea?", k=1)
    assert hit["document"]["path"] == f"{site.url}/tea"
    assert hit["document"]["title"] == "Tea"
    # One answers that it is the same, the other sends the same bytes again.
    assert run(live, "web", source)["counts"] == {"unchanged": 2, "failed": 1}
    site.put("/tea", "<p>Black tea.", ETag='"2"')
    site.pages["/port"] = Page(status=500)
    job = run(live, "web", source)
    assert job["counts"] == {"updated": 1, "failed": 2}
    assert len(live.query("web", "port")) == 2, "a server's trouble costs no document"
    del site.pages["/tea"], site.pages["/port"]
    assert run(live, "web", source)["counts"] == {"deleted": 2, "failed": 1}
    assert live.query("web", "tea") == []


def test_only_the_addresses_that_failed_are_tried_again(live: LiveServer, site: Site) -> None:
    site.put("/good", "<p>Good.")
    site.pages["/bad"] = site.pages["/map"] = Page(status=500)
    first = run(
        live,
        "again",
        {"urls": [f"{site.url}/good", f"{site.url}/bad"]},
        {"sitemap": f"{site.url}/map"},
    )
    assert first["counts"] == {"added": 1, "failed": 2}
    site.put("/bad", "<p>Well now.")
    site.put("/new", "<p>On the map.")
    site.put("/map", f"<url><loc>{site.url}/new</loc></url>")
    site.asked.clear()
    reply = live.http.post(f"/jobs/{first['id']}/retry")
    assert reply.status_code == 202, reply.text
    job = live.wait_for_job(reply.json()["id"])
    assert job["counts"] == {"added": 1, "updated": 1}, job["files"]
    assert sorted(site.asked) == ["/bad", "/map", "/new"]
    progress = job["progress"]
    assert progress["files_done"] == progress["files_total"] == 2
    assert progress["bytes_done"] == progress["bytes_total"] > 0


def test_a_sitemap_says_which_addresses_there_are(live: LiveServer, site: Site) -> None:
    def sitemap(*names: str) -> str:
        return "".join(f"<url><loc>{site.url}/{name}</loc></url>" for name in names)

    for name in "abc":
        site.put(f"/{name}", f"<p>This is {name}.")
    site.put("/index", f"<sitemapindex><sitemap><loc>{site.url}/map</loc></sitemap>")
    site.put("/map", sitemap("a", "b"))
    source: dict[str, object] = {"sitemap": f"{site.url}/index"}
    assert run(live, "map", source)["counts"] == {"added": 2}
    site.put("/map", sitemap("b", "c"))
    assert run(live, "map", source)["counts"] == {"added": 1, "unchanged": 1, "deleted": 1}
    # A sitemap that cannot be read says nothing about its documents.
    site.pages["/map"] = Page(status=404)
    job = run(live, "map", source)
    assert (job["counts"], live.counts("map")["documents"]) == ({"failed": 1}, 2)
    site.put("/map", sitemap(*"abcdefgh"))
    assert "too_many" in {file["code"] for file in run(live, "map", source)["files"]}
    assert "/f" not in site.asked


def test_inner_addresses_are_refused_by_default(server: LiveServer, site: Site) -> None:
    site.put("/secret", "secret")
    job = run(server, "inner", {"urls": [f"{site.url}/secret"]})
    server.http.delete("/indexes/inner")
    [file] = job["files"]
    assert (file["code"], file["outcome"]) == ("not_allowed", "failed")
    assert "EMBEDSERVE_FETCH_PRIVATE" in file["hint"]
    assert site.asked == []


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"path": "/d", "urls": ["http://a/"]},
        {"urls": ["ftp://a/"]},
        {"sitemap": "a.xml"},
        {"urls": ["http://a/"], "include": ["*.md"]},
    ],
)
def test_a_source_is_of_one_kind(server: LiveServer, source: dict[str, object]) -> None:
    reply = server.http.put("/indexes/kind", json={"sources": [source]})
    assert reply.status_code == 400
    assert "sources.0" in reply.json()["error"]


def test_a_watched_folder_is_kept_in_step(live: LiveServer) -> None:
    folder = live.home.parent / "documents" / "watched"
    folder.mkdir()
    (folder / "a.md").write_text("The first text.")

    def paths() -> list[str]:
        reply = live.http.get("/indexes/watched/documents").json()
        return [Path(document["path"]).name for document in reply["documents"]]

    definition = {"watch": True, "sources": [{"path": str(folder)}]}
    live.http.put("/indexes/watched", json=definition).raise_for_status()
    wait_until(lambda: paths() == ["a.md"], within_s=20)
    (folder / "sub").mkdir()
    (folder / "sub" / "b.md").write_text("The second text.")
    wait_until(lambda: paths() == ["a.md", "b.md"], within_s=20)
    (folder / "a.md").unlink()
    wait_until(lambda: paths() == ["b.md"], within_s=20)
    live.http.put("/indexes/watched", json={**definition, "watch": False}).raise_for_status()


def test_the_watch_command_ingests_what_changes_until_it_is_stopped(
    live: LiveServer, tmp_path: Path
) -> None:
    folder = live.home.parent / "documents" / "by-command"
    folder.mkdir()
    (folder / "a.md").write_text("The first text.")
    output = tmp_path / "output"
    arguments = ["watch", str(folder), "-i", "cli", "--settle", "0.2", "--home", str(live.home)]
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "embedserve", *arguments],
            stdout=file,
            stderr=file,
            env=environment(),
        )
    try:
        wait_until(lambda: b"Watching" in output.read_bytes(), within_s=60)
        (folder / "b.md").write_text("The second text.")
        wait_until(lambda: b"1 added, 1 unchanged" in output.read_bytes(), within_s=60)
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(60)
    assert status == 130, output.read_text()
    assert live.counts("cli")["documents"] == 2
