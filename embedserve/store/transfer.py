"""Whole indexes out of the catalog and into it: every row, from one snapshot, in one transaction.

Whoever adds a column to documents or chunks adds it here, and raises the version of the archive's
format (services/archive_format.py) with it.
"""

import json
import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from embedserve.errors import ConflictError, InvalidRequestError
from embedserve.store.database import Database, now
from embedserve.store.indexes import INDEX, insert_index
from embedserve.store.rows import PROBLEM_COLUMNS
from embedserve.types import Index

DOCUMENT_COLUMNS = (
    "path", "size_bytes", "mtime_ns", "sha256", "title", "kind", "indexed_at",
    "source", "metadata", "etag", "last_modified", *PROBLEM_COLUMNS.split(", "),
)  # fmt: skip
CHUNK_COLUMNS = (
    "ordinal", "span_start", "span_end", "page", "heading", "text_hash", "text",
)  # fmt: skip

Value = str | int | None | list[str]
Record = dict[str, Value]

DOCUMENTS = (
    f"SELECT id, {', '.join(DOCUMENT_COLUMNS)} FROM documents WHERE index_id = ? ORDER BY id"
)
CHUNKS = (
    f"SELECT document_id, {', '.join(CHUNK_COLUMNS)} FROM chunks WHERE index_id = ?"
    " ORDER BY document_id, ordinal"
)
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
        row = self._connection.execute(
            "SELECT origin FROM origins WHERE artefact = ?", (self.index.artefact,)
        ).fetchone()
        return str(row[0]) if row else None

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
        row = self._connection.execute(
            "SELECT 1 FROM chunks c LEFT JOIN vectors v ON v.artefact = ?"
            " AND v.text_hash = c.text_hash"
            " WHERE c.index_id = ? AND length(v.vector) IS NOT ? LIMIT 1",
            (index.artefact, index.id, 4 * index.dimensions),
        ).fetchone()
        return row is None

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
    """An index that is to be added, as streams of rows that are read once, in this order."""

    name: str
    definition: str
    model: str
    artefact: str
    dimensions: int
    origin: str | None
    vectors: Iterable[StoredVector]
    documents: Iterable[Record]
    chunks: Iterable[Record]


class Transfer:
    """Read and add whole indexes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def snapshot(self, name: str) -> Iterator[Snapshot]:
        """Hold an index as it is now."""
        with self._database.read() as connection:
            yield Snapshot(connection, name)

    def add(self, arrival: Arrival, *, is_same_origin: Callable[[str, str], bool]) -> Index:
        """Add an index with all its rows, or nothing.

        Raises ConflictError when the name is taken or the vectors would be a mixture,
        InvalidRequestError when the rows contradict each other, and what the streams raise.
        """
        facts = (arrival.name, arrival.definition, arrival.model, arrival.artefact)
        with self._database.write() as connection, _translated():
            taken = "SELECT 1 FROM indexes WHERE name = ?"
            if connection.execute(taken, (arrival.name,)).fetchone():
                raise ConflictError(
                    f"Index `{arrival.name}` exists already. Import under another name "
                    "(`--name`), or delete it first."
                )
            index = insert_index(connection, (*facts, arrival.dimensions, now()))
            _take_origin(connection, arrival, is_same_origin)
            connection.executemany(
                "INSERT INTO vectors (artefact, text_hash, vector) VALUES (?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                ((index.artefact, row.text_hash, row.content) for row in arrival.vectors),
            )
            numbers = _add_documents(connection, index, arrival.documents)
            _add_chunks(connection, index, arrival.chunks, numbers)
            connection.execute(
                "INSERT INTO changes (index_id, chunk_id, op)"
                " SELECT index_id, id, 'upsert' FROM chunks WHERE index_id = ? ORDER BY id",
                (index.id,),
            )
            if not Snapshot(connection, index.name).has_every_vector():
                raise InvalidRequestError(
                    "The archive lacks vectors of its chunks. Export the index again."
                )
        return index


def _take_origin(
    connection: sqlite3.Connection, arrival: Arrival, is_same: Callable[[str, str], bool]
) -> None:
    """Note where the vectors are from; refuse to mix them with those of another machine."""
    if arrival.origin is None:  # from a catalog that did not note it
        return
    row = connection.execute(
        "SELECT origin FROM origins WHERE artefact = ?", (arrival.artefact,)
    ).fetchone()
    if row and is_same(row[0], arrival.origin):
        return
    is_used = connection.execute(
        "SELECT 1 FROM indexes i JOIN chunks c ON c.index_id = i.id WHERE i.artefact = ? LIMIT 1",
        (arrival.artefact,),
    ).fetchone()
    if row and is_used:
        raise ConflictError(
            "The archive's vectors were computed on another class of machine than those that "
            f"other indexes of `{arrival.model}` hold here, and have other last bits. Import it "
            "into a home of its own, or delete those indexes first."
        )
    if row:
        connection.execute("DELETE FROM vectors WHERE artefact = ?", (arrival.artefact,))
    connection.execute(
        "INSERT INTO origins (artefact, origin) VALUES (?, ?)"
        " ON CONFLICT (artefact) DO UPDATE SET origin = excluded.origin",
        (arrival.artefact, arrival.origin),
    )


@dataclass(frozen=True)
class _Numbers:
    """The number that each document had in the archive, ascending, and what the first has now."""

    former: "array[int]"
    first: int

    def now(self, former: Value) -> int:
        """Return the present number of a document."""
        if isinstance(former, int):
            place = bisect_left(self.former, former)
            if place < len(self.former) and self.former[place] == former:
                return self.first + place
        raise InvalidRequestError(f"The archive has a chunk of document {former}, which it lacks.")


def _add_documents(
    connection: sqlite3.Connection, index: Index, documents: Iterable[Record]
) -> _Numbers:
    """Insert documents, which come in order of their number."""
    row = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM documents").fetchone()
    numbers = _Numbers(array("q"), int(row[0]))
    marks = ", ".join("?" * (2 + len(DOCUMENT_COLUMNS)))

    def rows() -> Iterator[tuple[Value, ...]]:
        for record in documents:
            number = numbers.first + len(numbers.former)
            numbers.former.append(cast(int, record["id"]))
            yield (number, index.id, *(record[name] for name in DOCUMENT_COLUMNS))

    columns = f"id, index_id, {', '.join(DOCUMENT_COLUMNS)}"
    connection.executemany(f"INSERT INTO documents ({columns}) VALUES ({marks})", rows())
    return numbers


def _add_chunks(
    connection: sqlite3.Connection, index: Index, chunks: Iterable[Record], numbers: _Numbers
) -> None:
    marks = ", ".join("?" * (2 + len(CHUNK_COLUMNS)))
    columns = f"index_id, document_id, {', '.join(CHUNK_COLUMNS)}"

    def rows() -> Iterator[tuple[Value, ...]]:
        for record in chunks:
            number = numbers.now(record["document"])
            heading = json.dumps(record["heading"], ensure_ascii=False)
            values = {**record, "heading": heading}
            yield (index.id, number, *(values[name] for name in CHUNK_COLUMNS))

    connection.executemany(f"INSERT INTO chunks ({columns}) VALUES ({marks})", rows())


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.DataError, OverflowError) as error:
        raise InvalidRequestError(
            f"The archive's rows contradict each other ({error}). Export the index again."
        ) from error
