"""The file itself: opened, refused, full, closed."""

import sqlite3
from pathlib import Path

import pytest

from embedserve.errors import CatalogError, CatalogUnavailableError
from embedserve.store.catalog import Catalog
from embedserve.store.database import Database


def test_a_newer_catalog_is_refused(tmp_path: Path) -> None:
    Catalog(tmp_path / "c").close()
    connection = sqlite3.connect(tmp_path / "c")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(CatalogError, match="schema version 99"):
        Catalog(tmp_path / "c")


def test_a_file_that_is_no_catalog_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(b"no database at all, but long enough" * 100)
    with pytest.raises(CatalogError, match="Move the file away"):
        Catalog(tmp_path / "c")
    other = sqlite3.connect(tmp_path / "other")
    other.execute("CREATE TABLE theirs (a)")
    other.close()
    with pytest.raises(CatalogError, match="another program"):
        Catalog(tmp_path / "other")


def test_a_closed_catalog_says_so(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path / "c")
    catalog.check()
    catalog.close()
    with pytest.raises(CatalogError):
        catalog.check()
    with pytest.raises(CatalogError):
        catalog.set_meta("a", "b")


def test_a_full_disk_is_named_and_the_catalog_goes_on(tmp_path: Path) -> None:
    database = Database(tmp_path / "c")
    insert = "INSERT INTO meta (key, value) VALUES (?, ?)"
    with database.write() as connection:
        [pages] = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    for _ in range(2):
        with (
            pytest.raises(CatalogUnavailableError, match="database or disk is full"),
            database.write() as connection,
        ):
            connection.execute(insert, ("large", "x" * 1_000_000))
    with database.write() as connection:
        connection.execute(insert, ("small", "x"))
    database.close()


def test_a_commit_that_fails_leaves_no_transaction_open(tmp_path: Path) -> None:
    database = Database(tmp_path / "c")
    orphan = "INSERT INTO job_counts (job_id, outcome, files) VALUES ('no', 'added', 1)"

    def commit_an_orphan() -> None:
        with database.write() as connection:
            connection.execute("PRAGMA defer_foreign_keys = ON")  # so that COMMIT is what fails
            connection.execute(orphan)

    with pytest.raises(CatalogError, match="FOREIGN KEY"):
        commit_an_orphan()
    with database.write() as connection:
        assert connection.execute("SELECT count(*) FROM job_counts").fetchone() == (0,)
    database.close()
