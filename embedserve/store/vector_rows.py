"""The `vectors` table: a text's vector of each artefact, shared by every index that holds it."""

import json
import sqlite3
from collections.abc import Collection, Iterable

from embedserve.store.rows import BYTES_PER_FLOAT, from_blob
from embedserve.types import Vectors

# The same text has the same vector, unless what is stored was damaged.
SAVE = """
INSERT INTO vectors (artefact, text_hash, vector) VALUES (?, ?, ?)
ON CONFLICT (artefact, text_hash) DO UPDATE SET vector = excluded.vector
WHERE length(vector) != length(excluded.vector)
"""

LACKING = """
SELECT c.id FROM chunks c LEFT JOIN vectors v ON v.artefact = ? AND v.text_hash = c.text_hash
WHERE c.index_id = ? AND length(v.vector) IS NOT ? LIMIT 1
"""

# An index that is on its way to an artefact is about to hold its vectors.
IN_USE = """
SELECT EXISTS (SELECT 1 FROM indexes i JOIN chunks c ON c.index_id = i.id WHERE i.artefact = :a)
  OR EXISTS (SELECT 1 FROM model_changes WHERE artefact = :a)
"""


def save_vectors(
    connection: sqlite3.Connection, artefact: str, rows: Iterable[tuple[str, bytes]]
) -> None:
    """Store vectors by the hash of their text, inside the caller's transaction.

    One that is there stays, unless it has another size.
    """
    connection.executemany(SAVE, ((artefact, *row) for row in rows))


def known_vectors(
    connection: sqlite3.Connection, artefact: str, dimensions: int, text_hashes: Collection[str]
) -> dict[str, Vectors]:
    """Map text hash to its (dimensions,) vector, for texts that were embedded before.

    One of another size is damaged and counts as unknown.
    """
    rows = connection.execute(
        "SELECT text_hash, vector FROM vectors WHERE artefact = ? AND length(vector) = ?"
        " AND text_hash IN (SELECT value FROM json_each(?))",
        (artefact, BYTES_PER_FLOAT * dimensions, json.dumps(list(text_hashes))),
    )
    return {row[0]: from_blob(row[1]) for row in rows}


def known_hashes(
    connection: sqlite3.Connection, artefact: str, dimensions: int, text_hashes: Collection[str]
) -> set[str]:
    """Return which of these texts have a vector; one of another size is damaged and counts not."""
    rows = connection.execute(
        "SELECT text_hash FROM vectors WHERE artefact = ? AND length(vector) = ?"
        " AND text_hash IN (SELECT value FROM json_each(?))",
        (artefact, BYTES_PER_FLOAT * dimensions, json.dumps(list(text_hashes))),
    )
    return {row[0] for row in rows}


def has_every_vector(
    connection: sqlite3.Connection, index_id: int, artefact: str, dimensions: int
) -> bool:
    """Tell whether each chunk of an index has a vector of the right size."""
    values = (artefact, index_id, BYTES_PER_FLOAT * dimensions)
    return connection.execute(LACKING, values).fetchone() is None


def is_in_use(connection: sqlite3.Connection, artefact: str) -> bool:
    """Tell whether an index holds vectors of an artefact, or is being given them."""
    return bool(connection.execute(IN_USE, {"a": artefact}).fetchone()[0])
