"""Whether the catalog's file and an index's vectors are what they should be."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedserve.store.database import Database
from embedserve.store.representatives import IS_FIRST
from embedserve.store.rows import BYTES_PER_FLOAT, are_sound, id_list, to_blob
from embedserve.types import Index

PAGE = 2000  # vectors in memory at once
SHOWN = 20  # of what SQLite finds wrong

# Every live chunk with its vector, or none.
CHUNK_VECTORS = """
SELECT c.id, v.vector FROM chunks c
LEFT JOIN vectors v ON v.artefact = ? AND v.text_hash = c.text_hash
WHERE c.index_id = ? AND c.id > ? ORDER BY c.id LIMIT ?
"""

EMBEDDED_COLUMNS = "c.id, c.text_hash, c.text, c.heading, d.title, d.path"
EMBEDDED_CHUNKS = f"""
SELECT {EMBEDDED_COLUMNS} FROM chunks c
JOIN documents d ON d.id = c.document_id
WHERE c.index_id = ? AND c.id IN (SELECT value FROM json_each(?)) ORDER BY c.id
"""

# What an index is being given by another model counts as used. A join, since SQLite compares
# `(a, b) NOT IN` with every row of the other side: 7 minutes for 50,000 of 150,000 vectors.
USED = """
WITH used (artefact, text_hash) AS MATERIALIZED (
  SELECT i.artefact, c.text_hash FROM chunks c JOIN indexes i ON i.id = c.index_id
  UNION ALL
  SELECT m.artefact, n.text_hash FROM model_changes m JOIN chunks c ON c.index_id = m.index_id
  JOIN new_hashes n ON n.chunk_id = c.id)
"""
UNUSED = """
FROM vectors v LEFT JOIN used u ON u.artefact = v.artefact AND u.text_hash = v.text_hash
WHERE u.text_hash IS NULL
"""


@dataclass(frozen=True)
class EmbeddedChunk:
    """What a chunk's vector was computed from."""

    id: int
    text_hash: str
    text: str
    heading: tuple[str, ...]
    title: str
    path: str
    """Of its document."""


@dataclass(frozen=True)
class VectorPage:
    """What a look at one page of chunks gave."""

    read: int
    bad: NDArray[np.int64]
    """Chunk ids without a sound vector, ascending."""


class Integrity:
    """Look for damage, and put vectors right."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def file_problems(self) -> list[str]:
        """Return what SQLite finds wrong with the whole file, in its words; reads all of it."""
        with self._database.read() as connection:
            found = connection.execute(f"PRAGMA quick_check({SHOWN})").fetchall()
            problems = [str(row[0]) for row in found if row[0] != "ok"]
            orphans = connection.execute("PRAGMA foreign_key_check").fetchmany(SHOWN)
        return problems + [
            f"row {row} of {table} refers to a row of {parent} that is gone"
            for table, row, parent, _ in orphans
        ]

    def bad_vectors(self, index: Index) -> Iterator[VectorPage]:
        """Look at the vectors of every live chunk, a page at a time.

        Sound is: there, of the right size, finite, of unit length.
        """
        after_id = 0
        while True:
            with self._database.read() as connection:
                rows = connection.execute(
                    CHUNK_VECTORS, (index.artefact, index.id, after_id, PAGE)
                ).fetchall()
            if not rows:
                return
            yield VectorPage(len(rows), _unsound(rows, index.dimensions))
            after_id = rows[-1][0]

    def embedded_chunks(self, index_id: int, ids: Sequence[int]) -> list[EmbeddedChunk]:
        """Return what the vectors of these chunks were computed from."""
        with self._database.read() as connection:
            rows = connection.execute(EMBEDDED_CHUNKS, (index_id, id_list(ids)))
            return [embedded_chunk(row) for row in rows]

    def replace_vectors(self, index: Index, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Store vectors again by their text hash, and ask for them to be carried to the index.

        Reads every chunk's hash once while nobody else writes: give it some dozens at a time.
        """
        with self._database.write() as connection:
            connection.executemany(
                "INSERT INTO vectors (artefact, text_hash, vector) VALUES (?, ?, ?)"
                " ON CONFLICT (artefact, text_hash) DO UPDATE SET vector = excluded.vector",
                ((index.artefact, key, to_blob(vector)) for key, vector in vectors.items()),
            )
            connection.execute(
                "INSERT INTO changes (index_id, chunk_id, op) SELECT c.index_id, c.id, 'upsert'"
                " FROM chunks c JOIN indexes i ON i.id = c.index_id"
                " WHERE i.artefact = ? AND c.text_hash IN (SELECT value FROM json_each(?))"
                f" AND {IS_FIRST}",
                (index.artefact, json.dumps(list(vectors))),
            )

    def count_unused_vectors(self) -> int:
        """Count the vectors that no chunk of any index has: they wait for their text's return."""
        with self._database.read() as connection:
            row = connection.execute(f"{USED} SELECT count(*) {UNUSED}").fetchone()
            return int(row[0])


def embedded_chunk(row: tuple[Any, ...]) -> EmbeddedChunk:
    """Read EMBEDDED_COLUMNS."""
    id_, text_hash, text, heading, title, path = row
    return EmbeddedChunk(id_, text_hash, text, tuple(json.loads(heading)), title, path)


def _unsound(rows: Sequence[tuple[int, bytes | None]], dimensions: int) -> NDArray[np.int64]:
    size = dimensions * BYTES_PER_FLOAT
    bad = [id_ for id_, blob in rows if blob is None or len(blob) != size]
    whole = [(id_, blob) for id_, blob in rows if blob is not None and len(blob) == size]
    is_sound = are_sound([blob for _, blob in whole], dimensions)
    bad += [id_ for (id_, _), sound in zip(whole, is_sound, strict=True) if not sound]
    return np.array(sorted(bad), dtype=np.int64)
