"""Open WebUI's calls of an external document loader and reranker, as its sources have them."""

from pathlib import Path
from urllib.parse import quote

import httpx

from tests.clients.conftest import READER, FrontEnd, bearer


def processed(front_end: FrontEnd, content: bytes, name: str) -> httpx.Response:
    """Send a file as `retrieval/loaders/external_document.py` does."""
    headers = {
        **bearer(READER),
        "Content-Type": "application/octet-stream",
        "X-Filename": quote(name),
    }
    return httpx.put(
        f"{front_end.url}/process", content=content, headers=headers, timeout=60, trust_env=False
    )


def test_a_pdf_comes_page_by_page(front_end: FrontEnd, data: Path) -> None:
    path = data / "docs-markitdown" / "files" / "REPAIR-2022-INV-001_multipage.pdf"
    reply = processed(front_end, path.read_bytes(), "Rechnung für Öl.pdf")
    assert reply.status_code == 200, reply.text
    pages = reply.json()
    assert [page["metadata"]["page"] for page in pages] == list(range(len(pages)))
    assert len(pages) > 1
    assert pages[0]["metadata"]["source"] == "Rechnung für Öl.pdf"
    assert "REPAIR" in "".join(page["page_content"] for page in pages).upper()
    assert not list((front_end.live.home / "uploads" / "0").iterdir()), "nothing is kept"


def test_other_files_are_one_text(front_end: FrontEnd, data: Path) -> None:
    path = data / "docs-markitdown" / "files" / "test.docx"
    [one] = processed(front_end, path.read_bytes(), path.name).json()
    assert "AutoGen" in one["page_content"]
    assert one["metadata"]["kind"]


def test_a_file_without_text_lets_its_client_go_on(front_end: FrontEnd) -> None:
    reply = processed(front_end, bytes(range(256)) * 40, "noise.bin")
    assert reply.status_code == 422
    assert reply.json()["detail"].startswith("No extractable text")
    empty = processed(front_end, b"", "nothing.txt")
    assert empty.status_code == 422
    assert "nothing.txt" in empty.json()["detail"]


def test_a_key_is_asked_for(front_end: FrontEnd) -> None:
    url = f"{front_end.url}/process"
    assert httpx.put(url, content=b"a", trust_env=False).status_code == 401
