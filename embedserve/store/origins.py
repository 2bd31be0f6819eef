"""The `origins` table: on what kind of machine the vectors of each artefact were computed.

One artefact may give other bits on another class of CPU or engine version. What tells two such
origins apart is opaque here: services/origins.py makes and compares it.
"""

import sqlite3

from embedserve.store.database import Database
from embedserve.store.vector_rows import is_in_use


class Origins:
    """Read and write the origin of an artefact's vectors."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, artefact: str) -> str | None:
        """Return the origin that was written down; None: no vector of this artefact is known."""
        with self._database.read() as connection:
            return origin_of(connection, artefact)

    def add(self, artefact: str, origin: str) -> str:
        """Write an origin down unless there is one, and return the one that holds."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO origins (artefact, origin) VALUES (?, ?)"
                " ON CONFLICT (artefact) DO NOTHING",
                (artefact, origin),
            )
            return origin_of(connection, artefact) or origin

    def renew(self, artefact: str, origin: str) -> bool:
        """Forget the artefact's vectors and begin anew with another origin.

        False, and nothing done, while an index holds chunks with these vectors, or is being
        given them.
        """
        with self._database.write() as connection:
            if is_in_use(connection, artefact):
                return False
            set_origin(connection, artefact, origin)
        return True


def origin_of(connection: sqlite3.Connection, artefact: str) -> str | None:
    """Return where the artefact's vectors were computed, if that was written down."""
    row = connection.execute(
        "SELECT origin FROM origins WHERE artefact = ?", (artefact,)
    ).fetchone()
    return str(row[0]) if row else None


def set_origin(connection: sqlite3.Connection, artefact: str, origin: str | None) -> None:
    """Forget an artefact's vectors, which must not be in use, and begin with another origin."""
    connection.execute("DELETE FROM vectors WHERE artefact = ?", (artefact,))
    connection.execute("DELETE FROM origins WHERE artefact = ?", (artefact,))
    if origin is not None:
        connection.execute(
            "INSERT INTO origins (artefact, origin) VALUES (?, ?)", (artefact, origin)
        )
