"""What the tests of front ends share: one server with keys, and one index of real documents."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live import LiveServer

READER, WRITER, OWNER = "reader-0123456789", "writer-0123456789", "owner-0123456789"
LIBRECHAT_SECRET = "librechat-jwt-secret-0123456789abcdef"
CHAPTERS = ("ch03-05", "ch04-01", "ch04-02", "ch09-02", "ch13-01")


@dataclass(frozen=True)
class FrontEnd:
    """A server that wants keys, with the index `book`: chapters of a book in Markdown."""

    live: LiveServer
    folder: Path
    """What may be ingested; the chapters are in `book` of it."""

    @property
    def url(self) -> str:
        """Where it serves."""
        return str(self.live.http.base_url).rstrip("/")


def bearer(key: str) -> dict[str, str]:
    """Return the header that carries a key."""
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="session")
def front_end(
    model_home: Path, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FrontEnd]:
    """Serve the book; tests leave its index as it is."""
    folder = tmp_path_factory.mktemp("front")
    (folder / "home").mkdir()
    (folder / "home" / "models").symlink_to(model_home / "models")
    documents = folder / "documents"
    (documents / "book").mkdir(parents=True)
    for path in sorted((data / "docs-rust-book" / "files" / "src").glob("*.md")):
        if path.name.startswith(CHAPTERS):
            shutil.copy(path, documents / "book")
    keys = f"read:{READER},read+ingest:{WRITER},admin:{OWNER}"
    settings = {
        "EMBEDSERVE_API_KEYS": keys,
        "EMBEDSERVE_LIBRECHAT_SECRET": LIBRECHAT_SECRET,
    }
    with LiveServer(folder / "home", allow=[documents], settings=settings) as live:
        live.http.headers.update(bearer(OWNER))
        job = live.ingest("book", documents / "book")
        assert job["counts"] == {"added": len(CHAPTERS)}, job
        yield FrontEnd(live, documents)
    assert live.process.returncode == 0, live.log()
    assert "Traceback" not in live.log(), live.log()
