"""Room given back: vectors that no chunk has are deleted, free pages returned to the system."""

import sqlite3
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace

from embedserve.store.database import BUSY_TIMEOUT_MS, Database
from embedserve.store.integrity import UNUSED, USED
from embedserve.store.rows import id_list

DELETE_BATCH = 5000
"""Vectors deleted in one transaction: others may write after some tens of milliseconds."""
RELEASE_PAGES = 2000  # of 4 KiB, in one transaction
INCREMENTAL = 2  # PRAGMA auto_vacuum

# Ids of chunks ascend, so a text that came to be used since then has a chunk with a higher one, or
# waits for another model.
DELETE = """
DELETE FROM vectors WHERE rowid IN (SELECT value FROM json_each(:rowids))
AND text_hash NOT IN (SELECT text_hash FROM chunks WHERE id > :newest)
AND text_hash NOT IN (SELECT text_hash FROM new_hashes)
AND text_hash NOT IN (SELECT text_hash FROM draft_chunks)
AND NOT EXISTS (SELECT 1 FROM jobs WHERE status = 'running')
"""


@dataclass(frozen=True)
class _State:
    """What may change which vectors are unused."""

    serving: frozenset[int]
    """Generations: an index that takes another model begins one."""
    auto_vacuum: int
    """With the first vacuum of an older catalog, rows get other numbers."""
    newest_chunk: int


class Upkeep:
    """Shrink the catalog while it is in use."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def size_bytes(self) -> int:
        """Return the size of the catalog's pages, in use or free."""
        with self._database.read() as connection:
            return _pragma(connection, "page_count") * _pragma(connection, "page_size")

    def delete_unused_vectors(self, *, batch: int = DELETE_BATCH) -> Iterator[int]:
        """Delete the vectors that no chunk of any index has; give how many after each batch.

        They are looked for beforehand, while others write. What is asked with each batch is only
        what may have come to be used since. None are deleted while a job runs, which may count on
        vectors whose chunks are still to come.
        """
        while True:
            with self._database.read() as connection:
                state = _state(connection)
                rows = connection.execute(f"{USED} SELECT v.rowid {UNUSED}")
                rowids = array("q", (row[0] for row in rows))
            for start in range(0, len(rowids), batch):
                deleted = self._delete(rowids[start : start + batch], state)
                if deleted is None:
                    break
                yield deleted
            else:
                return

    def _delete(self, rowids: "array[int]", state: _State) -> int | None:
        """Delete what is still unused; None, and nothing done, when that cannot be told now."""
        with self._database.write() as connection:
            now = _state(connection)
            if replace(now, newest_chunk=state.newest_chunk) != state:
                return None
            return connection.execute(
                DELETE, {"rowids": id_list(rowids), "newest": state.newest_chunk}
            ).rowcount

    def release_pages(self) -> bool:
        """Give some free pages back to the system; False when there are none.

        A catalog from before pages could be given back in steps is written anew as a whole, once:
        readers go on, writers wait, and the disk must have room for a second one.
        """
        with self._database.exclusive() as connection:
            free = _pragma(connection, "freelist_count")
            if _pragma(connection, "auto_vacuum") != INCREMENTAL:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                connection.execute("VACUUM")
                return False
            if free:
                # `execute` would take one step of it, which is one page.
                connection.executescript(f"PRAGMA incremental_vacuum({RELEASE_PAGES})")
            return free > RELEASE_PAGES

    def fold_log(self) -> bool:
        """Fold the write-ahead log into the file, which is when the file gets smaller.

        False when somebody reads an older state of it, such as an export: to wait for that would
        keep everybody who writes waiting too. SQLite folds it later by itself.
        """
        with self._database.exclusive() as connection:
            connection.execute("PRAGMA busy_timeout = 0")
            try:
                is_busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        return not is_busy


def _state(connection: sqlite3.Connection) -> _State:
    serving = connection.execute("SELECT key FROM generations WHERE status = 'serving'")
    newest = connection.execute("SELECT coalesce(max(id), 0) FROM chunks").fetchone()
    return _State(
        frozenset(row[0] for row in serving), _pragma(connection, "auto_vacuum"), newest[0]
    )


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
