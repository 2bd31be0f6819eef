"""Rows of documents, chunks and vectors that the transactions of several tables write."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from embedserve.errors import IndexNotFoundError
from embedserve.store import lexical_rows
from embedserve.store.representatives import log_new, log_removal
from embedserve.store.rows import Row, line_row, to_blob
from embedserve.store.vector_rows import save_vectors
from embedserve.store.words import TextTerms
from embedserve.types import Chunk, Index, NewDocument, Vectors

WITHOUT_VECTOR = """
SELECT count(*) FROM chunks c WHERE c.document_id = ? AND NOT EXISTS (
  SELECT 1 FROM vectors v WHERE v.artefact = ? AND v.text_hash = c.text_hash)
"""


CHUNK_COLUMNS = (
    "ordinal, span_start, span_end, page, heading, text_hash, text, line_start, line_end"
)


def check_document(index: Index, document: NewDocument) -> None:
    """Refuse what would only fail later, in the vector index, again and again."""
    count = len(document.chunks)
    if len(document.text_hashes) != count:
        raise ValueError(
            f"This is a bug: `{document.path}` has {count} chunks and "
            f"{len(document.text_hashes)} hashes"
        )
    check_vectors(index, document.new_hashes, document.vectors, f"`{document.path}`")


def check_vectors(index: Index, hashes: Sequence[str], vectors: Vectors, whose: str) -> None:
    """Refuse vectors of another shape, and ones that are not finite."""
    if vectors.shape != (len(hashes), index.dimensions):
        raise ValueError(
            f"This is a bug: {whose} has {len(hashes)} hashes and vectors of shape "
            f"{vectors.shape} for {index.dimensions} dimensions"
        )
    if not np.isfinite(vectors).all():
        raise ValueError(f"This is a bug: {whose} has a vector that is not finite")


def require_index(connection: sqlite3.Connection, index: Index) -> None:
    """Raise IndexNotFoundError when the index was deleted meanwhile."""
    if not connection.execute("SELECT 1 FROM indexes WHERE id = ?", (index.id,)).fetchone():
        raise IndexNotFoundError(
            f"Index `{index.name}` does not exist. It was deleted while a job was at work; "
            "create it again to go on."
        )


def end_upload(connection: sqlite3.Connection, index_id: int, path: str, stored: str) -> bool:
    """Note that a job is done with an upload; tell whether it is still the present one.

    True, and nothing done, for what is no upload (`stored` is empty).
    """
    ended = connection.execute(
        "UPDATE uploads SET job_id = NULL WHERE index_id = ? AND path = ? AND stored = ?",
        (index_id, path, stored),
    )
    return not stored or ended.rowcount == 1


def remove_document(connection: sqlite3.Connection, index_id: int, path: str) -> None:
    """Forget a document and its chunks, inside the caller's transaction."""
    remove_chunks(connection, index_id, path)
    connection.execute("DELETE FROM documents WHERE index_id = ? AND path = ?", (index_id, path))


def remove_chunks(connection: sqlite3.Connection, index_id: int, path: str) -> None:
    """Delete a document's chunks and log it, inside the caller's transaction."""
    row = connection.execute(
        "SELECT id FROM documents WHERE index_id = ? AND path = ?", (index_id, path)
    ).fetchone()
    if row is None:
        return
    lexical_rows.remove_document(connection, index_id, row[0])
    log_removal(connection, row[0])
    connection.execute("DELETE FROM chunks WHERE document_id = ?", row)


def require_vectors(
    connection: sqlite3.Connection, index: Index, document_id: int, path: str
) -> None:
    """Raise ValueError when a chunk of a document has no vector."""
    without = connection.execute(WITHOUT_VECTOR, (document_id, index.artefact)).fetchone()[0]
    if without:
        raise ValueError(f"This is a bug: {without} chunks of `{path}` have no vector")


def insert_vectors(
    connection: sqlite3.Connection, index: Index, hashes: Sequence[str], vectors: Vectors
) -> None:
    """Keep vectors, (len(hashes), dimensions), of which some may be there already."""
    pairs = zip(hashes, vectors, strict=True)
    save_vectors(connection, index.artefact, ((key, to_blob(vector)) for key, vector in pairs))


def insert_chunks(
    connection: sqlite3.Connection,
    index_id: int,
    document_id: int,
    document: NewDocument,
    terms: TextTerms | None,
) -> None:
    """Write the chunks of a document, log them and index their `terms` (`terms_of`)."""
    connection.executemany(
        f"INSERT INTO chunks (index_id, document_id, {CHUNK_COLUMNS})"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ((index_id, document_id, *row) for row in chunk_rows(document)),
    )
    log_new(connection, document_id)
    lexical_rows.add_document(connection, index_id, document_id, terms)


def terms_of(index: Index, document: NewDocument) -> TextTerms | None:
    """Return what full-text search is to know of a document's chunks.

    To be asked before a transaction, which it would keep others waiting in; None for a document
    with so many chunks that they follow in steps, such as one that was staged.
    """
    if document.draft or len(document.chunks) > lexical_rows.MOST_AT_ONCE:
        return None
    return lexical_rows.read_texts(
        lexical_rows.language_of(index.definition),
        ((document.title, chunk.heading, chunk.text) for chunk in document.chunks),
    )


class HashedChunks(Protocol):
    """Chunks with what they are known by."""

    @property
    def chunks(self) -> tuple[Chunk, ...]: ...  # noqa: D102  the attribute of that name

    @property
    def text_hashes(self) -> tuple[str, ...]: ...  # noqa: D102


def chunk_rows(hashed: HashedChunks) -> Iterator[Row]:
    """Give the values of CHUNK_COLUMNS for each chunk."""
    for chunk, text_hash in zip(hashed.chunks, hashed.text_hashes, strict=True):
        heading = json.dumps(chunk.heading, ensure_ascii=False)
        yield (
            chunk.ordinal,
            chunk.start,
            chunk.end,
            chunk.page,
            heading,
            text_hash,
            chunk.text,
            *line_row(chunk.lines),
        )
