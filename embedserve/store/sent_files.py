"""Files that were sent for no index yet: one row each; the bytes are files (`upload_files.py`)."""

from embedserve.store.database import Database
from embedserve.types import SentFile

_COLUMNS = "id, name, purpose, stored, size_bytes, sent_at"


class SentFiles:
    """Note, list and forget them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, file: SentFile) -> None:
        """Note a file whose bytes are in place."""
        with self._database.write() as connection:
            connection.execute(
                f"INSERT INTO files ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
                (file.id, file.name, file.purpose, file.stored, file.size_bytes, file.sent_at),
            )

    def get(self, file_id: str) -> SentFile | None:
        """Return one."""
        with self._database.read() as connection:
            row = connection.execute(
                f"SELECT {_COLUMNS} FROM files WHERE id = ?", (file_id,)
            ).fetchone()
        return SentFile(*row) if row else None

    def page(
        self, *, limit: int, after: str, purpose: str, is_newest_first: bool
    ) -> list[SentFile]:
        """List those behind `after`, from the beginning where that is empty; empty: any purpose."""
        sign, order = ("<", "DESC") if is_newest_first else (">", "ASC")
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM files WHERE (:purpose = '' OR purpose = :purpose)"
                f" AND (:after = '' OR rowid {sign} (SELECT rowid FROM files WHERE id = :after))"
                f" ORDER BY rowid {order} LIMIT :limit",
                {"purpose": purpose, "after": after, "limit": limit},
            ).fetchall()
        return [SentFile(*row) for row in rows]

    def remove(self, file_id: str) -> str | None:
        """Forget one and return its stored file; None when there is none."""
        with self._database.write() as connection:
            row = connection.execute(
                "DELETE FROM files WHERE id = ? RETURNING stored", (file_id,)
            ).fetchone()
        return str(row[0]) if row else None

    def stored(self) -> set[str]:
        """Return every stored file that counts."""
        with self._database.read() as connection:
            return {row[0] for row in connection.execute("SELECT stored FROM files")}
