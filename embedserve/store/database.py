"""One SQLite file: one writer at a time, many readers, and every failure a CatalogError.

Knows connections and transactions; what the tables mean is in the modules beside it.
"""

import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from threading import Lock

from embedserve.errors import CatalogError, CatalogUnavailableError
from embedserve.store.migrations import SCHEMA_VERSION, migrate, refuse_newer, version_of

logger = logging.getLogger(__name__)

APPLICATION_ID = 0x656D6273  # "embs": tells our file from another program's
OLDEST_SQLITE = (3, 37, 0)  # the first with STRICT tables
BUSY_TIMEOUT_MS = 10_000

# What the system refuses for a reason of its own, which may pass: no room, no right, no answer.
REFUSALS = ("SQLITE_FULL", "SQLITE_READONLY", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_BUSY")

# WAL: readers keep their snapshot while a commit goes on. NORMAL: no fsync for each commit, so a
# killed process loses nothing (the kernel has the pages) and a power cut loses the last commits
# but never consistency; the files concerned then look changed to the next scan and are read again.
CONNECTION_PRAGMAS = f"""
PRAGMA busy_timeout = {BUSY_TIMEOUT_MS};
PRAGMA journal_mode = WAL;
PRAGMA synchronous = NORMAL;
PRAGMA foreign_keys = ON;
PRAGMA journal_size_limit = 67108864;
"""


def now() -> str:
    """Return the present as RFC 3339 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Database:
    """The connections to one SQLite file; safe to share between threads.

    Raises CatalogError when the file cannot be opened, is not a catalog, or is newer than this
    program.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._write_lock = Lock()
        self._pool_lock = Lock()
        self._idle_readers: list[sqlite3.Connection] = []
        self._is_closed = False
        self._version = 0
        self._written_at = time.monotonic()
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise CatalogError(
                f"SQLite {sqlite3.sqlite_version} is too old for the catalog `{path}`. "
                "Use a Python built with SQLite 3.37 or newer."
            )
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._connect()

    @property
    def version(self) -> int:
        """Return a number that grows with every transaction, before whoever made it goes on.

        What was read while it was the same is still what the file says: one process has the file.
        """
        return self._version

    @property
    def quiet_s(self) -> float:
        """Return for how long nothing was written."""
        return time.monotonic() - self._written_at

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Hold the only write transaction: commit at the end, roll back on any exception."""
        with self._translated(), self._write_lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
                self._note_write()
            except BaseException:
                # SQLite itself rolls back what cannot go on, on a full disk for one.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def exclusive(self) -> Iterator[sqlite3.Connection]:
        """Hold the writing connection without a transaction, for what needs none."""
        with self._translated(), self._write_lock:
            yield self._writer
            self._note_write()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection that sees one snapshot for as long as it is held."""
        with self._translated():
            connection = self._borrow()
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                self._give_back(connection)

    def close(self) -> None:
        """Close every connection; a reader still at work closes its own when it ends."""
        with self._write_lock, self._pool_lock:
            self._is_closed = True
            for connection in [*self._idle_readers, self._writer]:
                connection.close()
            self._idle_readers.clear()

    def _note_write(self) -> None:
        self._written_at = time.monotonic()
        self._version += 1

    def _borrow(self) -> sqlite3.Connection:
        with self._pool_lock:
            if self._is_closed:
                raise CatalogError(f"The catalog `{self.path}` is closed. Start the server again.")
            if self._idle_readers:
                return self._idle_readers.pop()
        reader = self._open()
        reader.execute("PRAGMA query_only = ON")
        return reader

    def _give_back(self, connection: sqlite3.Connection) -> None:
        # ROLLBACK ends the snapshot; a long-lived one would stop the WAL from being folded back.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        with self._pool_lock:
            if self._is_closed:
                connection.close()
            else:
                self._idle_readers.append(connection)

    def _connect(self) -> sqlite3.Connection:
        """Open the writing connection, and lay out the tables in a new file."""
        is_new = not self.path.exists() or self.path.stat().st_size == 0
        # So that a vacuum can give free pages back in small steps. Only before anything is
        # written; on a file that has it already this would wait for the writer.
        connection = self._open("PRAGMA auto_vacuum = INCREMENTAL" if is_new else "")
        try:
            self._lay_out(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _open(self, first: str = "") -> sqlite3.Connection:
        # check_same_thread: the locks above give each connection to one thread at a time.
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            for pragma in [first, *CONNECTION_PRAGMAS.split(";")]:
                connection.execute(pragma)
        except BaseException:
            connection.close()
            raise
        return connection

    def _lay_out(self, connection: sqlite3.Connection) -> None:
        version = version_of(connection)
        refuse_newer(version, self.path)
        if version:
            if former := migrate(connection, self.path):
                logger.warning("the catalog was brought up to date; `%s` is as it was", former)
            return
        self._refuse_stranger(connection)
        schema = files("embedserve.store").joinpath("schema.sql").read_text(encoding="utf-8")
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{schema}\nPRAGMA application_id = {APPLICATION_ID};\n"
            f"PRAGMA user_version = {SCHEMA_VERSION};\nCOMMIT;"
        )

    def _refuse_stranger(self, connection: sqlite3.Connection) -> None:
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if tables and _application_id(connection) != APPLICATION_ID:
            raise CatalogError(
                f"`{self.path}` is a SQLite database of another program. "
                "Move it away, or choose another home folder."
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except UnicodeEncodeError as error:
            raise CatalogError(
                f"The catalog cannot hold a text or path that is not valid Unicode: "
                f"`{error.object[:100]!a}`. Rename the file."
            ) from error
        except (sqlite3.Error, OSError) as error:
            code = getattr(error, "sqlite_errorname", "")
            is_refusal = code.startswith(REFUSALS) or isinstance(error, OSError)
            kind = CatalogUnavailableError if is_refusal else CatalogError
            raise kind(self._advice(error, code)) from error

    def _advice(self, error: Exception, code: str) -> str:
        if code in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
            return (
                f"`{self.path}` is not a readable catalog ({error}). Move the file away and "
                "ingest again, or restore it from a backup."
            )
        return (
            f"The catalog `{self.path}` failed: {error}. "
            "Check free space, permissions, and that no other program holds the file."
        )


def _application_id(connection: sqlite3.Connection) -> int:
    value: int = connection.execute("PRAGMA application_id").fetchone()[0]
    return value
