"""The `origins` table: on what kind of machine the vectors of each artefact were computed.

One artefact may give other bits on another class of CPU or engine version. What tells two such
origins apart is opaque here: services/origins.py makes and compares it.
"""

from embedserve.store.database import Database


class Origins:
    """Read and write the origin of an artefact's vectors."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, artefact: str) -> str | None:
        """Return the origin that was written down; None: no vector of this artefact is known."""
        with self._database.read() as connection:
            row = connection.execute(
                "SELECT origin FROM origins WHERE artefact = ?", (artefact,)
            ).fetchone()
        return str(row[0]) if row else None

    def add(self, artefact: str, origin: str) -> str:
        """Write an origin down unless there is one, and return the one that holds."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO origins (artefact, origin) VALUES (?, ?)"
                " ON CONFLICT (artefact) DO NOTHING",
                (artefact, origin),
            )
            row = connection.execute(
                "SELECT origin FROM origins WHERE artefact = ?", (artefact,)
            ).fetchone()
        return str(row[0])

    def renew(self, artefact: str, origin: str) -> bool:
        """Forget the artefact's vectors and begin anew with another origin.

        False, and nothing done, while an index holds chunks with these vectors.
        """
        with self._database.write() as connection:
            is_used = connection.execute(
                "SELECT 1 FROM indexes i JOIN chunks c ON c.index_id = i.id"
                " WHERE i.artefact = ? LIMIT 1",
                (artefact,),
            ).fetchone()
            if is_used:
                return False
            connection.execute("DELETE FROM vectors WHERE artefact = ?", (artefact,))
            connection.execute(
                "INSERT INTO origins (artefact, origin) VALUES (?, ?)"
                " ON CONFLICT (artefact) DO UPDATE SET origin = excluded.origin",
                (artefact, origin),
            )
        return True
