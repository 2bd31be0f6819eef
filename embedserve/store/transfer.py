"""Whole indexes out of the catalog and into it: read from one snapshot, there in one transaction.

Whoever adds a column to documents or chunks adds it to store/staging.py, and raises the version of
the archive's format (services/archive_format.py) with it.
"""

import json
import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import cast

from embedserve.errors import ConflictError
from embedserve.store.database import Database, now
from embedserve.store.indexes import INDEX, insert_index
from embedserve.store.lexical import Lexical
from embedserve.store.lexical_rows import begin_anew
from embedserve.store.origins import origin_of, set_origin
from embedserve.store.representatives import log_all
from embedserve.store.rows import BYTES_PER_FLOAT
from embedserve.store.staging import CHUNK_COLUMNS, DOCUMENT_COLUMNS, Record, Staging, Value
from embedserve.store.vector_rows import has_every_vector, is_in_use, save_vectors
from embedserve.types import Index

BATCH = 5000
"""Vectors in one transaction: others may write after some tens of milliseconds."""
BATCH_BYTES = 16 << 20
TRIES = 3
"""How often vectors are stored that a vacuum deletes before their index is there."""

DOCUMENTS = (
    f"SELECT id, {', '.join(DOCUMENT_COLUMNS)} FROM documents WHERE index_id = ? ORDER BY id"
)
CHUNKS = (
    f"SELECT document_id, {', '.join(CHUNK_COLUMNS)} FROM chunks WHERE index_id = ?"
    " ORDER BY document_id, ordinal"
)
# Sizes were right when they were stored.
MISSING = """
SELECT 1 FROM chunks c WHERE c.index_id = ? AND NOT EXISTS (
  SELECT 1 FROM vectors v WHERE v.artefact = ? AND v.text_hash = c.text_hash) LIMIT 1
"""
HELD = "artefact = ? AND text_hash IN (SELECT text_hash FROM chunks WHERE index_id = ?)"


@dataclass(frozen=True)
class StoredVector:
    """One row of `vectors`."""

    text_hash: str
    content: bytes
    """Little-endian float32."""


@dataclass(frozen=True)
class Counts:
    """Rows of an index."""

    documents: int
    chunks: int
    vectors: int
    """Distinct ones."""


class Snapshot:
    """An index as it was at one moment, whatever is written meanwhile."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        row = connection.execute(INDEX + "WHERE i.name = ?", (name,)).fetchone()
        if row is None:
            raise ConflictError(f"Index `{name}` was deleted a moment ago. List the indexes.")
        self._connection = connection
        self.index = Index(*row)

    def origin(self) -> str | None:
        """Return where the artefact's vectors were computed."""
        return origin_of(self._connection, self.index.artefact)

    def counts(self) -> Counts:
        """Count what the other methods give."""
        index = self.index
        row = self._connection.execute(
            "SELECT (SELECT count(*) FROM documents WHERE index_id = ?),"
            " (SELECT count(*) FROM chunks WHERE index_id = ?),"
            f" (SELECT count(*) FROM vectors WHERE {HELD})",
            (index.id, index.id, index.artefact, index.id),
        ).fetchone()
        return Counts(*row)

    def has_every_vector(self) -> bool:
        """Tell whether each chunk has a vector of the right size."""
        index = self.index
        return has_every_vector(self._connection, index.id, index.artefact, index.dimensions)

    def documents(self) -> Iterator[Record]:
        """Give every document, with a number of its own as `id`."""
        names = ("id", *DOCUMENT_COLUMNS)
        for row in self._connection.execute(DOCUMENTS, (self.index.id,)):
            yield dict(zip(names, row, strict=True))

    def chunks(self) -> Iterator[Record]:
        """Give every chunk; `document` is the `id` of its document."""
        names = ("document", *CHUNK_COLUMNS)
        for row in self._connection.execute(CHUNKS, (self.index.id,)):
            record = dict(zip(names, row, strict=True))
            yield {**record, "heading": json.loads(record["heading"])}

    def vectors(self) -> Iterator[StoredVector]:
        """Give every distinct vector, by the hash of its text."""
        rows = self._connection.execute(
            f"SELECT text_hash, vector FROM vectors WHERE {HELD} ORDER BY text_hash",
            (self.index.artefact, self.index.id),
        )
        for row in rows:
            yield StoredVector(*row)


@dataclass(frozen=True)
class Arrival:
    """An index that is to be added: its rows, which hold together, and its vectors."""

    name: str
    definition: str
    model: str
    artefact: str
    dimensions: int
    origin: str | None
    rows: Staging
    vectors: Callable[[], Iterable[StoredVector]]
    """Gives them from the beginning whenever it is called; every chunk's is among them."""


class Transfer:
    """Read and add whole indexes."""

    def __init__(self, database: Database, lexical: Lexical) -> None:
        self._database = database
        self._lexical = lexical

    @contextmanager
    def snapshot(self, name: str) -> Iterator[Snapshot]:
        """Hold an index as it is now."""
        with self._database.read() as connection:
            yield Snapshot(connection, name)

    def add(self, arrival: Arrival, *, is_same_origin: Callable[[str, str], bool]) -> Index:
        """Add an index with all its rows, or no index.

        Its vectors come first, in batches between which others write; without the index they are
        as those that no chunk has any more. Raises ConflictError when the name is taken or the
        vectors would be a mixture, and what the stream of vectors raises.
        """
        with self._database.write() as connection:
            _require_free(connection, arrival.name)
            origin = _take_origin(connection, arrival, is_same_origin)
        for _ in range(TRIES):
            self._add_vectors(arrival, origin)
            if index := self._add_rows(arrival, origin):
                return index
        raise ConflictError(
            f"Vectors of index `{arrival.name}` were deleted while it was imported. Import it "
            "again when no vacuum is at work."
        )

    def _add_vectors(self, arrival: Arrival, origin: str | None) -> None:
        size_bytes = arrival.dimensions * BYTES_PER_FLOAT
        count = max(1, min(BATCH, BATCH_BYTES // size_bytes))
        vectors = iter(arrival.vectors())
        while batch := [(row.text_hash, row.content) for row in islice(vectors, count)]:
            with self._database.write() as connection:
                _require_origin(connection, arrival, origin)
                save_vectors(connection, arrival.artefact, batch)

    def _add_rows(self, arrival: Arrival, origin: str | None) -> Index | None:
        """Add the index; None, and nothing done, when vectors of it are gone again."""
        facts = (arrival.name, arrival.definition, arrival.model, arrival.artefact)
        try:
            with self._database.write() as connection:
                _require_free(connection, arrival.name)
                _require_origin(connection, arrival, origin)
                index = insert_index(connection, (*facts, arrival.dimensions, now()))
                numbers = _add_documents(connection, index, arrival.rows)
                _add_chunks(connection, index, arrival.rows, numbers)
                log_all(connection, index.id)
                begin_anew(connection, index.id)
                if connection.execute(MISSING, (index.id, index.artefact)).fetchone():
                    raise _IncompleteError
        except _IncompleteError:
            return None
        self._lexical.came(index.id, are_waiting=True)
        return index


class _IncompleteError(Exception):
    """Rolls a transaction back."""


def _require_free(connection: sqlite3.Connection, name: str) -> None:
    if connection.execute("SELECT 1 FROM indexes WHERE name = ?", (name,)).fetchone():
        raise ConflictError(
            f"Index `{name}` exists already. Import under another name (`--name`), or delete it "
            "first."
        )


def _require_origin(connection: sqlite3.Connection, arrival: Arrival, origin: str | None) -> None:
    if origin_of(connection, arrival.artefact) != origin:
        raise ConflictError(
            f"Vectors of `{arrival.model}` were begun anew on this machine while index "
            f"`{arrival.name}` was imported. Import it again."
        )


def _take_origin(
    connection: sqlite3.Connection, arrival: Arrival, is_same: Callable[[str, str], bool]
) -> str | None:
    """Note where the vectors are from; refuse to mix them with those of another machine."""
    stored = origin_of(connection, arrival.artefact)
    if stored is not None and arrival.origin is not None and is_same(stored, arrival.origin):
        return stored
    if is_in_use(connection, arrival.artefact):
        raise ConflictError(
            "The archive's vectors were computed on another class of machine than those that "
            f"other indexes of `{arrival.model}` hold here, or one of the two does not say where, "
            "so last bits may differ. Import it into a home of its own, or delete those indexes "
            "first."
        )
    set_origin(connection, arrival.artefact, arrival.origin)
    return arrival.origin


@dataclass(frozen=True)
class _Numbers:
    """The number that each document had in the archive, ascending, and what the first has now."""

    former: "array[int]"
    first: int

    def now(self, former: int) -> int:
        """Return the present number of a document."""
        return self.first + bisect_left(self.former, former)


def _add_documents(connection: sqlite3.Connection, index: Index, staged: Staging) -> _Numbers:
    row = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM documents").fetchone()
    numbers = _Numbers(array("q"), int(row[0]))
    marks = ", ".join("?" * (2 + len(DOCUMENT_COLUMNS)))

    def rows() -> Iterator[tuple[Value, ...]]:
        for former, *values in staged.documents():
            number = numbers.first + len(numbers.former)
            numbers.former.append(cast(int, former))
            yield (number, index.id, *values)

    columns = f"id, index_id, {', '.join(DOCUMENT_COLUMNS)}"
    connection.executemany(f"INSERT INTO documents ({columns}) VALUES ({marks})", rows())
    return numbers


def _add_chunks(
    connection: sqlite3.Connection, index: Index, staged: Staging, numbers: _Numbers
) -> None:
    marks = ", ".join("?" * (2 + len(CHUNK_COLUMNS)))
    columns = f"index_id, document_id, {', '.join(CHUNK_COLUMNS)}"
    connection.executemany(
        f"INSERT INTO chunks ({columns}) VALUES ({marks})",
        ((index.id, numbers.now(cast(int, former)), *row) for former, *row in staged.chunks()),
    )
