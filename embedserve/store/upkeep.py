"""Room given back: vectors that no chunk has are deleted, free pages returned to the system."""

import sqlite3

from embedserve.store.database import Database

DELETE_BATCH = 5000
"""Vectors deleted in one transaction: others may write after some tens of milliseconds."""
RELEASE_PAGES = 2000  # of 4 KiB, in one transaction
INCREMENTAL = 2  # PRAGMA auto_vacuum

# The set of used texts is read anew for each batch: a chunk may be added between two.
# While a job runs, vectors may be kept for chunks that are still to come, and others be counted on.
UNUSED = """
SELECT rowid FROM vectors WHERE (artefact, text_hash) NOT IN (
  SELECT i.artefact, c.text_hash FROM chunks c JOIN indexes i ON i.id = c.index_id)
AND NOT EXISTS (SELECT 1 FROM jobs WHERE status = 'running')
LIMIT ?
"""


class Upkeep:
    """Shrink the catalog while it is in use."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def size_bytes(self) -> int:
        """Return the size of the catalog's pages, in use or free."""
        with self._database.read() as connection:
            return _pragma(connection, "page_count") * _pragma(connection, "page_size")

    def delete_unused_vectors(self) -> int:
        """Delete some vectors that no chunk of any index has; return how many, 0 at the end.

        None are deleted while a job runs.
        """
        with self._database.write() as connection:
            return connection.execute(
                f"DELETE FROM vectors WHERE rowid IN ({UNUSED})", (DELETE_BATCH,)
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

    def fold_log(self) -> None:
        """Fold the write-ahead log into the file, which is when the file gets smaller."""
        with self._database.exclusive() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value
