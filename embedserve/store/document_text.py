"""The text of one document as its chunks hold it: exact spans, without the blanks between them."""

import sqlite3
from collections.abc import Iterator

from embedserve.store.database import Database
from embedserve.store.rows import read_lines
from embedserve.types import DocumentFile, DocumentHead, TextPiece

_HEAD = """
SELECT d.id, d.index_id, i.name, d.path, d.title, d.kind, d.sha256, d.source, d.metadata
FROM documents d JOIN indexes i ON i.id = d.index_id WHERE d.id = ? AND d.problem_code IS NULL
"""
_FILE = """
SELECT d.size_bytes, coalesce(u.stored, '') FROM documents d
LEFT JOIN uploads u ON u.index_id = d.index_id AND u.path = d.path AND d.source = 'upload'
WHERE d.id = ?
"""
_SPAN = "SELECT span_end FROM chunks WHERE document_id = ? AND ordinal = ?"
_PIECES = """
SELECT text, span_start, span_end, page, line_start, line_end FROM chunks
WHERE document_id = ? AND ordinal >= ? ORDER BY ordinal
"""


class DocumentText:
    """Read documents that were indexed, a part at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def head(self, document_id: int) -> DocumentHead | None:
        """Return what a document is; None for one that is not there or gave no text."""
        with self._database.read() as connection:
            row = connection.execute(_HEAD, (document_id,)).fetchone()
            if row is None:
                return None
            last = _last_ordinal(connection, document_id)
            return DocumentHead(*(*row, _span_end(connection, document_id, last)))

    def file(self, document_id: int) -> DocumentFile | None:
        """Return what is known of the file of a document; None for one that is not there."""
        with self._database.read() as connection:
            row = connection.execute(_FILE, (document_id,)).fetchone()
            return DocumentFile(*row) if row else None

    def pieces(self, document_id: int, start: int, *, max_chars: int) -> list[TextPiece]:
        """Return the chunks from the one that holds the character `start` on, in order.

        As many as have `max_chars` together, one at least where there is one.
        """
        pieces: list[TextPiece] = []
        left = max_chars
        for piece in self._from(document_id, start):
            if pieces and len(piece.text) > left:
                break
            pieces.append(piece)
            left -= len(piece.text)
        return pieces

    def _from(self, document_id: int, start: int) -> Iterator[TextPiece]:
        with self._database.read() as connection:
            first = _ordinal_at(connection, document_id, start)
            rows = connection.execute(_PIECES, (document_id, first))
            for text, start, end, page, line_start, line_end in rows:
                yield TextPiece(text, start, end, page, read_lines(line_start, line_end))


def _last_ordinal(connection: sqlite3.Connection, document_id: int) -> int:
    row = connection.execute(
        "SELECT coalesce(max(ordinal), -1) FROM chunks WHERE document_id = ?", (document_id,)
    ).fetchone()
    return int(row[0])


def _ordinal_at(connection: sqlite3.Connection, document_id: int, start: int) -> int:
    """Return the first chunk that ends behind `start`, by halving: a document may have millions."""
    low, high = 0, _last_ordinal(connection, document_id)
    while low < high:
        middle = (low + high) // 2
        if _span_end(connection, document_id, middle) > start:
            high = middle
        else:
            low = middle + 1
    return low


def _span_end(connection: sqlite3.Connection, document_id: int, ordinal: int) -> int:
    row = connection.execute(_SPAN, (document_id, ordinal)).fetchone()
    return int(row[0]) if row else 0
