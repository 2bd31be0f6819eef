"""The log that the vector index drains: what it has yet to apply, oldest first."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from embedserve.store.chunks import LIVE_VECTORS
from embedserve.store.database import Database
from embedserve.store.representatives import IS_FIRST, log_all
from embedserve.store.rows import chunk_vectors, id_list
from embedserve.types import Index, PendingChanges

# Nothing for an index that was deleted since somebody looked.
ENQUEUE_UPSERTS = """
INSERT INTO changes (index_id, chunk_id, op)
SELECT i.id, value, 'upsert' FROM indexes i, json_each(?) WHERE i.id = ? ORDER BY value
"""
# The same, and a chunk may have come to stand for its text since.
ENQUEUE_DELETES = f"""
INSERT INTO changes (index_id, chunk_id, op)
SELECT i.id, value, 'delete' FROM indexes i, json_each(:ids) WHERE i.id = :index AND NOT EXISTS (
  SELECT 1 FROM chunks c WHERE c.id = value AND c.index_id = :index AND {IS_FIRST})
ORDER BY value
"""


class Changes:
    """Read, acknowledge and add to the log of an index."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def pending(self, index: Index, *, limit: int = 500) -> PendingChanges | None:
        """Return the oldest changes, collapsed, or None when there is nothing to do.

        A chunk's last change counts, and an upsert of a chunk that is gone or does not stand for
        its text is left out, so both parts may be empty; such a batch is acknowledged like any
        other.
        """
        with self._database.read() as connection:
            log = connection.execute(
                "SELECT seq, chunk_id, op FROM changes WHERE index_id = ? ORDER BY seq LIMIT ?",
                (index.id, limit),
            ).fetchall()
            if not log:
                return None
            last = {chunk_id: op for _, chunk_id, op in log}
            upserts = id_list(chunk_id for chunk_id, op in last.items() if op == "upsert")
            rows = connection.execute(
                f"{LIVE_VECTORS} AND c.id IN (SELECT value FROM json_each(?)) AND {IS_FIRST}"
                " ORDER BY c.id",
                (index.artefact, index.id, upserts),
            ).fetchall()
        return PendingChanges(
            up_to=log[-1][0],
            upserts=chunk_vectors(rows, index),
            deletes=tuple(sorted(chunk_id for chunk_id, op in last.items() if op == "delete")),
        )

    def pending_ids(self, index_id: int) -> NDArray[np.int64]:
        """Return the ids of every chunk that the log still names, ascending."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT DISTINCT chunk_id FROM changes WHERE index_id = ? ORDER BY chunk_id",
                (index_id,),
            )
            return np.fromiter((row[0] for row in rows), dtype=np.int64)

    def count(self) -> int:
        """Count the changes of all indexes that the log still names."""
        with self._database.read() as connection:
            return int(connection.execute("SELECT count(*) FROM changes").fetchone()[0])

    def has_pending(self, index_id: int) -> bool:
        """Tell whether the log still names a chunk of this index."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM changes WHERE index_id = ?)", (index_id,)
            ).fetchone()
            return bool(row[0])

    def last_number(self) -> int:
        """Return the number of the last change of any index, applied or not; it never falls."""
        with self._database.read() as connection:
            row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'")
            return int((row.fetchone() or (0,))[0])

    def acknowledge(self, index_id: int, up_to: int) -> None:
        """Forget the changes that the vector index has applied."""
        with self._database.write() as connection:
            connection.execute(
                "DELETE FROM changes WHERE index_id = ? AND seq <= ?", (index_id, up_to)
            )

    def enqueue_upserts(self, index_id: int, ids: Iterable[int]) -> None:
        """Ask for these chunks to be upserted again."""
        with self._database.write() as connection:
            connection.execute(ENQUEUE_UPSERTS, (id_list(ids), index_id))

    def enqueue_deletes(self, index_id: int, ids: Iterable[int]) -> None:
        """Ask for these ids to be deleted, except of chunks that stand for their text by now."""
        with self._database.write() as connection:
            connection.execute(ENQUEUE_DELETES, {"index": index_id, "ids": id_list(ids)})

    def enqueue_all(self, index_id: int) -> int:
        """Ask for every representative to be upserted; return how many there are."""
        with self._database.write() as connection:
            # The upserts already asked for are among them.
            connection.execute(
                "DELETE FROM changes WHERE index_id = ? AND op = 'upsert'", (index_id,)
            )
            return log_all(connection, index_id)
