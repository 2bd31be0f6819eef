"""Which chunks stand for their text: of the live chunks of an index with one text hash, the first.

Only representatives are in the vector index: near-duplicate documents cost it nothing, and equal
texts do not crowd an answer. Ids ascend, so a chunk that stands for its text does so until it is
deleted, and another takes its place only then.
"""

import sqlite3

# Of the chunk `c`. Named, so that the planner never reads the whole index for each row.
IS_FIRST = """
NOT EXISTS (SELECT 1 FROM chunks f INDEXED BY chunks_by_text
  WHERE f.index_id = c.index_id AND f.text_hash = c.text_hash AND f.id < c.id)
"""

COUNT_TEXTS = """
SELECT count(*) FROM (SELECT DISTINCT text_hash FROM chunks WHERE index_id = :id)
"""

FIRST_IDS = "SELECT min(id) AS id FROM chunks WHERE index_id = ? GROUP BY text_hash"

_OF_DOCUMENT = f"FROM chunks c WHERE c.document_id = ? AND {IS_FIRST}"
# The next chunk with the text, of another document; all of this one go.
_HEIRS = f"""
FROM chunks c JOIN chunks heir ON heir.id = (
  SELECT o.id FROM chunks o INDEXED BY chunks_by_text
  WHERE o.index_id = c.index_id AND o.text_hash = c.text_hash AND o.document_id != c.document_id
  ORDER BY o.id LIMIT 1)
WHERE c.document_id = ? AND {IS_FIRST} ORDER BY heir.id
"""
FIRST_OF_DOCUMENT = f"SELECT c.id {_OF_DOCUMENT} ORDER BY c.id"
"""The chunks of a document that stand for their text."""
HEIRS_OF_DOCUMENT = f"SELECT heir.id {_HEIRS}"
"""The chunks of others that are to do so without that document."""

_LOG = "INSERT INTO changes (index_id, chunk_id, op)"


def log_all(connection: sqlite3.Connection, index_id: int) -> int:
    """Log every representative of an index as one to be upserted, in the caller's transaction.

    Returns how many there are.
    """
    return connection.execute(
        f"{_LOG} SELECT c.index_id, c.id, 'upsert' FROM chunks c"
        f" WHERE c.index_id = ? AND {IS_FIRST} ORDER BY c.id",
        (index_id,),
    ).rowcount


def log_new(connection: sqlite3.Connection, document_id: int) -> None:
    """Log which chunks of a document stand for their text, in the transaction that wrote them."""
    _log_document(connection, document_id, "upsert")


def log_removal(connection: sqlite3.Connection, document_id: int) -> None:
    """Log that the chunks of a document are about to go, and which others take their place."""
    _log_document(connection, document_id, "delete")
    connection.execute(f"{_LOG} SELECT heir.index_id, heir.id, 'upsert' {_HEIRS}", (document_id,))


def _log_document(connection: sqlite3.Connection, document_id: int, op: str) -> None:
    connection.execute(
        f"{_LOG} SELECT c.index_id, c.id, ? {_OF_DOCUMENT} ORDER BY c.id", (op, document_id)
    )
