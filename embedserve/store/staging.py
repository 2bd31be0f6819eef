"""The rows of an index that is to be added: parsed and checked while nobody waits for them.

They lie in a file without a name, which goes with this process, and so need no memory.
"""

import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from embedserve.errors import CatalogUnavailableError, InvalidRequestError
from embedserve.store.closing import Closing
from embedserve.store.integrity import EmbeddedChunk, embedded_chunk
from embedserve.store.rows import PROBLEM_COLUMNS, Row

DOCUMENT_COLUMNS = (
    "path", "size_bytes", "mtime_ns", "sha256", "title", "kind", "indexed_at",
    "source", "metadata", "etag", "last_modified", *PROBLEM_COLUMNS.split(", "),
)  # fmt: skip
CHUNK_COLUMNS = (
    "ordinal", "span_start", "span_end", "page", "heading", "text_hash", "text",
    "line_start", "line_end",
)  # fmt: skip

Value = str | int | None | list[str]
Record = dict[str, Value]

SCHEMA = f"""
CREATE TABLE documents (id INTEGER PRIMARY KEY, {", ".join(DOCUMENT_COLUMNS)}, UNIQUE (path));
CREATE TABLE chunks (
  id INTEGER PRIMARY KEY, document, {", ".join(CHUNK_COLUMNS)}, UNIQUE (document, ordinal));
CREATE TABLE hashes (text_hash TEXT PRIMARY KEY) WITHOUT ROWID;
"""
# There is nothing to recover: what fails is thrown away.
PRAGMAS = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;"

PASSAGES = """
SELECT c.id, c.text_hash, c.text, c.heading, d.title, d.path
FROM chunks c JOIN documents d ON d.id = c.document
"""


class Staging(Closing):
    """Take rows, tell whether they hold together, and give them in order."""

    def __init__(self, folder: Path) -> None:
        with _translated(), tempfile.NamedTemporaryFile(dir=folder, prefix=".import-") as file:
            self._connection = sqlite3.connect(
                file.name, isolation_level=None, check_same_thread=False
            )
            self._connection.executescript(PRAGMAS + SCHEMA)

    def add_documents(self, records: Iterable[Record]) -> None:
        """Take documents, each with a number of its own as `id`."""
        names = ("id", *DOCUMENT_COLUMNS)
        self._insert("documents", names, (tuple(row[name] for name in names) for row in records))

    def add_chunks(self, records: Iterable[Record]) -> None:
        """Take chunks; `document` is the `id` of their document."""
        names = ("document", *CHUNK_COLUMNS)

        def rows() -> Iterator[Row]:
            for record in records:
                heading = json.dumps(record["heading"], ensure_ascii=False)
                values = {**record, "heading": heading}
                yield tuple(values[name] for name in names)

        self._insert("chunks", names, rows())

    def add_hashes(self, hashes: Iterable[str]) -> None:
        """Take the hashes of the texts that there are vectors of."""
        self._insert("hashes", ("text_hash",), ((text_hash,) for text_hash in hashes))

    def check_documents(self) -> None:
        """Raise InvalidRequestError when a chunk belongs to no document."""
        stray = self._first("document", "documents WHERE id = c.document")
        if stray is not None:
            raise InvalidRequestError(
                f"The archive has a chunk of document {stray}, which it lacks."
            )

    def check_hashes(self) -> None:
        """Raise InvalidRequestError when a chunk has no vector."""
        if self._first("id", "hashes WHERE text_hash = c.text_hash") is not None:
            raise InvalidRequestError(
                "The archive lacks vectors of its chunks. Export the index again."
            )

    def passages(self, *, page: int) -> Iterator[list[EmbeddedChunk]]:
        """Give every chunk in pages, as it is embedded."""
        after_id = 0
        while rows := self._connection.execute(
            f"{PASSAGES} WHERE c.id > ? ORDER BY c.id LIMIT ?", (after_id, page)
        ).fetchall():
            yield [embedded_chunk(row) for row in rows]
            after_id = rows[-1][0]

    def sample(self, count: int) -> list[EmbeddedChunk]:
        """Draw some chunks."""
        rows = self._connection.execute(
            f"{PASSAGES} WHERE c.id IN (SELECT id FROM chunks ORDER BY random() LIMIT ?)", (count,)
        )
        return [embedded_chunk(row) for row in rows]

    def documents(self) -> Iterator[tuple[Value, ...]]:
        """Give `id` and DOCUMENT_COLUMNS, ascending."""
        names = ", ".join(("id", *DOCUMENT_COLUMNS))
        yield from self._connection.execute(f"SELECT {names} FROM documents ORDER BY id")

    def chunks(self) -> Iterator[tuple[Value, ...]]:
        """Give `document` and CHUNK_COLUMNS, in order of both."""
        names = ", ".join(("document", *CHUNK_COLUMNS))
        yield from self._connection.execute(
            f"SELECT {names} FROM chunks ORDER BY document, ordinal"
        )

    def close(self) -> None:
        """Let the file go."""
        self._connection.close()

    def _insert(self, table: str, names: tuple[str, ...], rows: Iterable[Row]) -> None:
        marks = ", ".join("?" * len(names))
        with _translated():
            self._connection.execute("BEGIN")
            self._connection.executemany(
                f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", rows
            )
            self._connection.execute("COMMIT")

    def _first(self, column: str, counterpart: str) -> Value:
        row = self._connection.execute(
            f"SELECT {column} FROM chunks c WHERE NOT EXISTS (SELECT 1 FROM {counterpart}) LIMIT 1"
        ).fetchone()
        return row[0] if row else None


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.DataError, OverflowError) as error:
        raise InvalidRequestError(
            f"The archive's rows contradict each other ({error}). Export the index again."
        ) from error
    except (sqlite3.Error, OSError) as error:
        raise CatalogUnavailableError(
            f"The rows of the archive cannot be stored: {error}. Free some space in the home."
        ) from error
