"""Pages of documents: what is shown and marked, who may see it, and that nothing in it runs."""

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from embedserve.errors import DocumentNotFoundError, InvalidRequestError
from embedserve.services.document_pages import PAGE_CHARS, DocumentPages, PageName, Passage
from embedserve.store.catalog import Catalog
from embedserve.types import Chunk, Index, StoredChunk
from tests.live import LiveServer
from tests.store_samples import catalog_with_index, document

HOSTILE = (
    "# A page\n\n<script>document.title = 'owned'</script>\n\n"
    "The 🦊 quick brown fox & the <b>lazy</b> dog.\n\nAnother paragraph follows it here."
)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[tuple[Catalog, Index, str]]:
    with catalog_with_index(tmp_path) as opened:
        yield opened


def add(shelf: tuple[Catalog, Index, str], path: str, texts: list[str]) -> int:
    """Keep a document whose chunks stand two blanks apart; return its id."""
    catalog, index, job = shelf
    version = document(path, texts)
    chunks, start = [], 0
    for chunk in version.chunks:
        chunks.append(Chunk(chunk.ordinal, chunk.text, start, start + len(chunk.text), page=1))
        start += len(chunk.text) + 2
    placed = type(version)(**{**vars(version), "chunks": tuple(chunks)})
    catalog.documents.commit(index, placed, job_id=job, outcome="added")
    listed = catalog.documents.known_at(index.id, [path])
    assert path in listed
    return next(
        number
        for number in range(1, 100)
        if (head := catalog.document_text.head(number)) and head.path == path
    )


@pytest.mark.parametrize(
    ("start", "size", "text", "end"),
    [
        (0, 100, "one two three four", 20),
        (0, 3, "one", 3),
        (1, 7, "ne two", 8),
        (3, 2, "", 3),
        (6, 4, "wo", 8),
        (6, 6, "wo th", 12),
        (19, 50, "r", 20),
        (20, 5, "", 20),
        (900, 5, "", 900),
    ],
)
def test_a_part_of_the_text_is_what_stands_there(
    shelf: tuple[Catalog, Index, str], start: int, size: int, text: str, end: int
) -> None:
    catalog, _, _ = shelf
    pages = DocumentPages(catalog)
    head = pages.document(add(shelf, "/d/a.md", ["one", "two", "three four"]))
    found = pages.read(head, start=start, max_chars=size)
    # Blanks between chunks are told apart from nothing, not counted.
    assert (found.text.split(), found.end) == (text.split(), end)


def named(link: str) -> PageName:
    return PageName(link.removeprefix("/d/").partition("?")[0])


def test_a_link_leads_to_its_document_alone(shelf: tuple[Catalog, Index, str]) -> None:
    catalog, _, _ = shelf
    number = add(shelf, "/d/a.md", ["one", "two"])
    other = add(shelf, "/d/b.md", ["three"])
    pages = DocumentPages(catalog)
    link = pages.link(pages.document(number))
    assert [piece.text for piece in pages.page(named(link)).pieces] == ["one", "two"]
    code = link.partition("-")[2]
    wrong = [f"{other}-{code}", f"{number}-{'0' * 20}", f"{number}", "", "x-1", f"{2**61}-{code}"]
    for bad in wrong:
        with pytest.raises(DocumentNotFoundError):
            pages.page(PageName(bad))


def test_links_outlive_the_process_and_differ_by_catalog(tmp_path: Path) -> None:
    index, chunk = Index(1, "notes", "{}", "m", "a", 8, "", 1), chunk_of("/a")
    with Catalog(tmp_path / "one") as one, Catalog(tmp_path / "two") as two:
        link = DocumentPages(one).permalink(index, chunk)
        assert DocumentPages(one).permalink(index, chunk) == link
        assert DocumentPages(two).permalink(index, chunk) != link


def chunk_of(path: str) -> StoredChunk:
    return StoredChunk(1, "one", 0, 3, None, (), None, 0, 1, path, "")


def test_a_number_that_is_given_again_has_another_link(shelf: tuple[Catalog, Index, str]) -> None:
    catalog, index, job = shelf
    number = add(shelf, "/d/a.md", ["one"])
    pages = DocumentPages(catalog)
    link = pages.link(pages.document(number))
    catalog.documents.delete(index, "/d/a.md", job_id=job)
    with pytest.raises(DocumentNotFoundError):
        pages.page(named(link))
    assert add(shelf, "/d/secret.md", ["another"]) == number
    with pytest.raises(DocumentNotFoundError):
        pages.page(named(link))


def test_a_long_document_is_shown_in_parts(shelf: tuple[Catalog, Index, str]) -> None:
    catalog, _, _ = shelf
    texts = [f"{number:05d}" + "x" * 995 for number in range(350)]
    number = add(shelf, "/d/long.txt", texts)
    pages = DocumentPages(catalog)
    name = named(pages.link(pages.document(number)))
    shown, start = [], 0
    while start < pages.head(name).chars:
        page = pages.page(name, start=start)
        assert sum(len(piece.text) for piece in page.pieces) <= PAGE_CHARS
        shown += [piece.text for piece in page.pieces]
        start = page.end
    assert shown == texts
    place = pages.page(name, passage=Passage(300_610, 300_620))
    assert place.start < 300_610 < place.end
    assert place.start > 290_000
    beyond = pages.page(name, passage=Passage(10**9, 10**9 + 1))
    assert beyond.pieces[-1].text == texts[-1]


def test_a_passage_that_is_none_is_refused(shelf: tuple[Catalog, Index, str]) -> None:
    catalog, _, _ = shelf
    number = add(shelf, "/d/a.md", ["one"])
    pages = DocumentPages(catalog)
    name = named(pages.link(pages.document(number)))
    with pytest.raises(InvalidRequestError):
        pages.page(name, passage=Passage(3, 3))


@pytest.fixture(scope="module")
def server(model_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "docs").mkdir()
    (folder / "docs" / "a.md").write_text(HOSTILE)
    home = folder / "home"
    home.mkdir()
    (home / "models").symlink_to(model_home / "models")
    settings = {"EMBEDSERVE_API_KEYS": "read+ingest:" + "k" * 20}
    with LiveServer(home, allow=[folder / "docs"], settings=settings) as live:
        live.http.headers["Authorization"] = "Bearer " + "k" * 20
        assert live.ingest("notes", folder / "docs")["status"] == "succeeded"
        yield live


def test_a_hit_links_to_its_marked_passage(server: LiveServer) -> None:
    [hit] = [hit for hit in server.query("notes", "quick brown fox") if "fox" in hit["text"]]
    link, _, fragment = hit["permalink"].partition("#chars=")
    assert fragment == f"{hit['start']}-{hit['end']}"
    assert "signed=" not in link  # the index has no rules
    with httpx.Client(base_url=server.http.base_url, trust_env=False) as browser:  # without a key
        reply = browser.get(f"{link}&chars={fragment}")
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    marked = "".join(re.findall("<mark>(.*?)</mark>", reply.text, re.DOTALL))
    assert "The 🦊 quick brown fox &amp; the &lt;b&gt;lazy&lt;/b&gt; dog." in marked


def test_a_page_offers_its_original_as_a_download_that_runs_nowhere(server: LiveServer) -> None:
    name = 'né "x".md'
    body = {"documents": [{"name": name, "text": HOSTILE + "\nHedgehogs dig."}]}
    server.http.post("/indexes/notes/documents?wait=true", json=body).raise_for_status()
    for question, content in (("quick brown fox", HOSTILE), ("hedgehogs dig", "Hedgehogs dig.")):
        [hit, *_] = server.query("notes", question, mode="lexical", k=1)
        page = hit["permalink"].partition("?")[0]
        with httpx.Client(base_url=server.http.base_url, trust_env=False) as browser:  # without key
            assert f'href="{page}/original"' in browser.get(page).text
            reply = browser.get(f"{page}/original")
        assert reply.status_code == 200, reply.text
        assert content in reply.text
        assert reply.headers["content-type"] == "application/octet-stream"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert reply.headers["content-length"] == str(len(reply.content))
        saved = reply.headers["content-disposition"]
        assert saved.startswith('attachment; filename="')
    assert saved.endswith("n_ _x_.md\"; filename*=UTF-8''n%C3%A9%20%22x%22.md")
    server.http.delete(f"/indexes/notes/documents/{name}").raise_for_status()
    assert server.http.get(f"{page}/original").status_code == 404


def test_the_original_of_a_member_is_the_archive(server: LiveServer, tmp_path: Path) -> None:
    packed = tmp_path / "two.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("inner/otters.txt", "Otters sleep on their backs in kelp.")
    with packed.open("rb") as file:
        files = {"file": ("two.zip", file)}
        server.http.post("/indexes/notes/documents?wait=true", files=files).raise_for_status()
    [hit, *_] = server.query("notes", "otters sleep kelp", k=1)
    assert (hit["document"]["path"], hit["heading"][0]) == ("two.zip", "inner/otters.txt")
    reply = server.http.get(hit["permalink"].partition("?")[0] + "/original")
    assert reply.content == packed.read_bytes()


def test_a_changed_file_is_no_original(server: LiveServer) -> None:
    [hit, *_] = server.query("notes", "quick brown fox", k=1)
    page = hit["permalink"].partition("?")[0]
    path = Path(hit["document"]["path"])
    try:
        path.write_text(HOSTILE.replace("quick", "quack"))
        reply = server.http.get(f"{page}/original")
        assert (reply.status_code, "has changed" in reply.json()["error"]) == (409, True)
        path.write_text("longer" + HOSTILE)
        assert "file has changed since it was read" in server.http.get(page).text
        path.unlink()
        assert "no longer there" in server.http.get(page).text
        assert server.http.get(f"{page}/original").status_code == 404
    finally:
        path.write_text(HOSTILE)
    assert server.http.get(f"{page}/original").text == HOSTILE


def test_nothing_in_a_document_runs(server: LiveServer) -> None:
    [hit, *_] = server.query("notes", "quick brown fox")
    reply = server.http.get(hit["permalink"].partition("#")[0])
    assert "<script>document.title" not in reply.text
    assert reply.text.count("<script>") == 1
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_a_changed_document_says_so(server: LiveServer) -> None:
    [hit, *_] = server.query("notes", "quick brown fox")
    link = re.sub("v=[0-9a-f]+", "v=00000000", hit["permalink"].partition("#")[0])
    assert "changed since" in server.http.get(link).text
    assert "changed since" not in server.http.get(hit["permalink"].partition("#")[0]).text


@pytest.mark.parametrize("query", ["chars=", "chars=9-3", "chars=a-b", "from=-1", "chars=1"])
def test_bad_places_are_refused_with_a_reason(server: LiveServer, query: str) -> None:
    [hit, *_] = server.query("notes", "quick brown fox")
    reply = server.http.get(hit["permalink"].partition("?")[0] + "?" + query)
    assert reply.status_code in (200, 400), reply.text
    if reply.status_code == 400:
        assert json.loads(reply.text)["error"]


def test_a_link_that_is_none_is_not_found(server: LiveServer) -> None:
    assert server.http.get("/d/1-00000000000000000000").status_code == 404
