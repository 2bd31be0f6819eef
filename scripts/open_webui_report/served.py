"""What Open WebUI is put in front of: embedserve with an index of a book, and a language model."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.serving import fresh_home
from tests.live import LiveServer
from tests.llm_double import LanguageModels, language_models

READER, ADMIN = "reader-0123456789", "admin-0123456789"
MODEL = "quoter"
"""It quotes the first passage that it is given, so that an answer proves that passages arrived."""
TOOL_CALLER = "looker"
"""It calls a tool before."""
INDEX = "book"
CHAPTERS = "ch0[348]*.md"
"""Of the book: those on common concepts, ownership and collections."""


@dataclass(frozen=True)
class Served:
    """Both servers."""

    live: LiveServer
    theirs: LanguageModels

    @property
    def url(self) -> str:
        """Address of embedserve."""
        return str(self.live.http.base_url).rstrip("/")


@contextmanager
def served(models: Path, chapters: Path) -> Iterator[Served]:
    """Serve with keys, and ingest the chapters."""
    with (
        fresh_home(models) as home,
        tempfile.TemporaryDirectory() as folder,
        language_models() as theirs,
    ):
        documents = Path(folder).resolve()
        for path in chapters.glob(CHAPTERS):
            shutil.copy(path, documents)
        settings = {
            "EMBEDSERVE_API_KEYS": f"read:{READER},admin:{ADMIN}",
            "EMBEDSERVE_CHAT_UPSTREAMS": f"llm={theirs.url}/v1",
            "EMBEDSERVE_CHAT_MODEL": MODEL,
        }
        with LiveServer(home, allow=[documents], settings=settings, patience=5) as live:
            live.http.headers["Authorization"] = f"Bearer {ADMIN}"
            job = live.ingest(INDEX, documents)
            if job["status"] != "succeeded":
                raise SystemExit(f"The book was not ingested: {job}")
            theirs.forget()
            yield Served(live, theirs)
