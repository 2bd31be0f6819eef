"""The `generations` table: what the vector index holds of each index, and what it is to forget.

A generation is filled beside the one that serves, and takes its place in one transaction.
"""

import sqlite3
from dataclasses import dataclass

from embedserve.errors import IndexNotFoundError
from embedserve.store.database import Database
from embedserve.types import Index


@dataclass(frozen=True)
class Generation:
    """A generation that is being built beside the one that serves."""

    key: int
    filled_to: int
    """The last chunk that it was given, in order of id."""


class Generations:
    """Begin, advance and switch generations; list those that are over."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, index: Index) -> Generation:
        """Return the generation that is being built for the index, a new one if there is none."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO generations (index_id, status) SELECT id, 'building' FROM indexes"
                " WHERE id = ? ON CONFLICT DO NOTHING",
                (index.id,),
            )
            found = _building(connection, index.id)
        if found is None:
            raise IndexNotFoundError(
                f"Index `{index.name}` does not exist any more. List the indexes to see which do."
            )
        return found

    def building(self, index_id: int) -> Generation | None:
        """Return the generation that is being built, if any."""
        with self._database.read() as connection:
            return _building(connection, index_id)

    def note_filled(self, key: int, filled_to: int) -> None:
        """Write down how far a generation is filled."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE generations SET filled_to = ? WHERE key = ?", (filled_to, key)
            )

    def switch(self, index: Index, building: Generation) -> bool:
        """Let the new generation serve and the present one be dropped.

        False, and nothing done, when the index was deleted or switched meanwhile.
        """
        with self._database.write() as connection:
            is_there = connection.execute(
                "SELECT count(*) FROM generations WHERE index_id = ? AND key IN (?, ?)",
                (index.id, index.key, building.key),
            ).fetchone()
            if is_there != (2,):
                return False
            _drop(connection, index.key)
            connection.execute(
                "UPDATE generations SET status = 'serving' WHERE key = ?", (building.key,)
            )
        return True

    def give_up(self, key: int) -> None:
        """Drop a generation that is being built."""
        with self._database.write() as connection:
            _drop(connection, key)

    def dropped(self) -> list[int]:
        """List the keys that the vector index may still hold and is to forget."""
        with self._database.read() as connection:
            rows = connection.execute("SELECT key FROM dropped_generations ORDER BY key")
            return [row[0] for row in rows]

    def acknowledge_drop(self, key: int) -> None:
        """Forget a key that the vector index has dropped."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM dropped_generations WHERE key = ?", (key,))


def _building(connection: sqlite3.Connection, index_id: int) -> Generation | None:
    row = connection.execute(
        "SELECT key, filled_to FROM generations WHERE index_id = ? AND status = 'building'",
        (index_id,),
    ).fetchone()
    return Generation(*row) if row else None


def _drop(connection: sqlite3.Connection, key: int) -> None:
    connection.execute("DELETE FROM generations WHERE key = ?", (key,))
    # The deletion of its index may have dropped it a moment before.
    connection.execute(
        "INSERT INTO dropped_generations (key) VALUES (?) ON CONFLICT DO NOTHING", (key,)
    )
