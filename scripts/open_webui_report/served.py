"""What Open WebUI is put in front of: embedserve with two indexes, and a language model.

One index is a book for everybody. In the other each user has a document of their own.
"""

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
DESK = "desk"
"""The index with access rules."""
DESK_DEFINITION = {
    "access": {
        "rules": [{"claim": "email", "field": "owner"}],
        "public": {"metadata": {"visibility": "public"}},
    }
}
USER_TOKEN_SECRET = "shared-by-open-webui-and-embedserve-0123456789"


@dataclass(frozen=True)
class Person:
    """A user of Open WebUI, and their document."""

    name: str
    email: str
    title: str
    text: str


ADA = Person(
    "Ada Admin",
    "ada@example.com",
    "Ada's budget",
    "The travel budget of Ada's team is 4,100 euros, to be spent until the end of June.",
)
"""The first user, who is Open WebUI's administrator."""
BERT = Person(
    "Bert User",
    "bert@example.com",
    "Bert's budget",
    "The travel budget of Bert's team is 2,700 euros, and half of it is spent by now.",
)
EVERYBODY = Person(
    "Everybody",
    "",
    "Travel rules",
    "Whoever has a travel budget takes trains below 600 kilometres.",
)
"""Whose document all users see."""


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
    """Serve with keys and user tokens, and ingest the chapters and the users' documents."""
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
            "EMBEDSERVE_USER_TOKEN_SECRET": USER_TOKEN_SECRET,
        }
        with LiveServer(home, allow=[documents], settings=settings, patience=5) as live:
            live.http.headers["Authorization"] = f"Bearer {ADMIN}"
            job = live.ingest(INDEX, documents)
            if job["status"] != "succeeded":
                raise SystemExit(f"The book was not ingested: {job}")
            _fill_desk(live)
            theirs.forget()
            yield Served(live, theirs)


def _fill_desk(live: LiveServer) -> None:
    live.http.put(f"/indexes/{DESK}", json=DESK_DEFINITION).raise_for_status()
    documents = [
        {
            "name": f"{one.name}.txt",
            "title": one.title,
            "text": one.text,
            "metadata": {"owner": one.email} if one.email else {"visibility": "public"},
        }
        for one in (ADA, BERT, EVERYBODY)
    ]
    body = {"documents": documents}
    reply = live.http.post(f"/indexes/{DESK}/documents?wait=true", json=body)
    if reply.status_code != 200 or reply.json()["job"]["status"] != "succeeded":
        raise SystemExit(f"The users' documents were not ingested: {reply.text}")
