"""Older catalogs become present ones: a file of SQL for each version, run in order.

`schema.sql` lays out a new file; `NNNN.sql` here turns the version before it into NNNN (a number
may be left out). Whoever changes the tables changes the first, adds the second and raises
SCHEMA_VERSION; a test compares the two.
"""

import os
import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

from embedserve.errors import CatalogError

SCHEMA_VERSION = 10


def version_of(connection: sqlite3.Connection) -> int:
    """Return the schema version of a catalog; 0: nothing is laid out."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def refuse_newer(version: int, path: Path) -> None:
    """Raise CatalogError for a catalog that a newer program wrote."""
    if version > SCHEMA_VERSION:
        raise CatalogError(
            f"The catalog `{path}` has schema version {version}; this program knows up "
            f"to {SCHEMA_VERSION}. Upgrade embedserve, or start with another home folder."
        )


def migrate(connection: sqlite3.Connection, path: Path) -> Path | None:
    """Bring an older catalog up to date and return where its former state was copied to.

    Each step is one transaction that ends with its version number, so what is interrupted goes on
    where it stopped. None: there was nothing to do.
    """
    version = version_of(connection)
    if version == SCHEMA_VERSION:
        return None
    former = path.with_name(f"{path.name}.version-{version}")
    _copy(connection, former)
    for step in range(version + 1, SCHEMA_VERSION + 1):
        file = files(__name__) / f"{step:04}.sql"
        if not file.is_file():
            continue
        script = file.read_text(encoding="utf-8")
        connection.executescript(
            f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {step};\nCOMMIT;"
        )
    return former


def _copy(connection: sqlite3.Connection, target: Path) -> None:
    """Copy the whole catalog; the copy has its name once it is complete."""
    partial = target.with_name(f"{target.name}.partial")
    partial.unlink(missing_ok=True)
    with closing(sqlite3.connect(partial)) as copy:
        connection.backup(copy)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(target)
