"""The catalog: the system of record, one object over the tables of one SQLite file.

What Chroma holds is derived from it and can be thrown away; what is here cannot.
"""

from pathlib import Path
from uuid import uuid4

from embedserve.store.changes import Changes
from embedserve.store.chunks import Chunks
from embedserve.store.closing import Closing
from embedserve.store.database import Database
from embedserve.store.document_text import DocumentText
from embedserve.store.documents import Documents
from embedserve.store.drafts import Drafts
from embedserve.store.generations import Generations
from embedserve.store.indexes import Indexes
from embedserve.store.integrity import Integrity
from embedserve.store.jobs import Jobs
from embedserve.store.lexical import Lexical
from embedserve.store.meeting import Meeting
from embedserve.store.model_changes import ModelChanges
from embedserve.store.origins import Origins
from embedserve.store.sent_files import SentFiles
from embedserve.store.transfer import Transfer
from embedserve.store.upkeep import Upkeep
from embedserve.store.uploads import Uploads


class Catalog(Closing):
    """Open the catalog at `path`, or lay out a new one; safe to share between threads.

    Every method of its parts is one transaction and raises CatalogError when SQLite fails.

    >>> with Catalog(home / "catalog.sqlite3") as catalog:
    ...     index = catalog.indexes.get("notes")
    """

    def __init__(self, path: Path) -> None:
        self._database = Database(path)
        self.indexes = Indexes(self._database)
        self.meeting = Meeting(self._database)
        self.lexical = Lexical(self._database, self.meeting)
        self.documents = Documents(self._database, self.lexical)
        self.document_text = DocumentText(self._database)
        self.drafts = Drafts(self._database)
        self.chunks = Chunks(self._database)
        self.uploads = Uploads(self._database)
        self.files = SentFiles(self._database)
        self.changes = Changes(self._database)
        self.generations = Generations(self._database)
        self.integrity = Integrity(self._database)
        self.transfer = Transfer(self._database, self.lexical)
        self.upkeep = Upkeep(self._database)
        self.model_changes = ModelChanges(self._database, self.lexical)
        self.jobs = Jobs(self._database)
        self.origins = Origins(self._database)

    def check(self) -> None:
        """Return when the file can be read; raise CatalogError when it cannot."""
        with self._database.read() as connection:
            connection.execute("SELECT count(*) FROM indexes").fetchone()

    @property
    def id(self) -> str:
        """Twelve hex digits that tell this catalog from every other one."""
        known = self.get_meta("id")
        if known is None:
            known = uuid4().hex[:12]
            self.set_meta("id", known)
        return known

    def get_meta(self, key: str) -> str | None:
        """Read a mark that the owner left, such as that of a clean shutdown."""
        with self._database.read() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return str(row[0]) if row else None

    def set_meta(self, key: str, value: str) -> None:
        """Leave a mark under `key`."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (key, value),
            )

    def close(self) -> None:
        """Close the file; what was committed is safe already."""
        self._database.close()
