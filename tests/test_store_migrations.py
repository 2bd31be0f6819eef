"""Catalogs of earlier versions: brought up to date whole, or left as they were."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from embedserve.errors import CatalogError
from embedserve.store.catalog import Catalog
from embedserve.store.migrations import SCHEMA_VERSION
from tests.store_samples import ARTEFACT

VERSION_2 = Path(__file__).with_name("catalog_version_2.sql").read_text(encoding="utf-8")


def lay_out(path: Path, version: int) -> None:
    """Make a catalog as that version left it, with two indexes of which the second was deleted."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_2)
        if version == 1:
            connection.execute("DROP TABLE origins")
        for name in ("notes", "gone"):
            connection.execute(
                "INSERT INTO indexes (name, definition, model, artefact, dimensions, created_at)"
                " VALUES (?, '{}', 'm', ?, 8, 'then')",
                (name, ARTEFACT),
            )
        connection.execute("DELETE FROM indexes WHERE name = 'gone'")
        connection.execute("INSERT INTO dropped_indexes VALUES (2)")
        connection.execute(f"PRAGMA user_version = {version}")
        connection.commit()


def shape(path: Path) -> dict[str, object]:
    """Return every table's columns, keys and indexes, however they came to be."""
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute(
            "SELECT name, wr, strict FROM pragma_table_list WHERE schema = 'main' ORDER BY name"
        ).fetchall()
        return {
            name: (
                flags,
                connection.execute(f"PRAGMA table_xinfo({name})").fetchall(),
                connection.execute(f"PRAGMA foreign_key_list({name})").fetchall(),
                sorted(row[2:] for row in connection.execute(f"PRAGMA index_list({name})")),
            )
            for name, *flags in tables
            if not name.startswith("sqlite_")
        }


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_catalog_gets_the_shape_of_a_new_one_and_keeps_its_rows(
    tmp_path: Path, version: int
) -> None:
    old = tmp_path / "old"
    lay_out(old, version)
    Catalog(tmp_path / "new").close()
    with Catalog(old) as catalog:
        notes = catalog.indexes.get("notes")
        assert (notes.id, notes.key, notes.created_at) == (1, 1, "then")
        assert catalog.generations.dropped() == [2]
        # Key 2 named the deleted index; what the vector index still holds under it is no one's.
        other = catalog.indexes.create("b", "{}", model="m", artefact=ARTEFACT, dimensions=8)
        assert other.key == 3
        assert catalog.origins.add("a", "first") == "first"
    assert shape(old) == shape(tmp_path / "new")
    with closing(sqlite3.connect(tmp_path / f"old.version-{version}")) as former:
        assert former.execute("PRAGMA user_version").fetchone() == (version,)
        assert former.execute("SELECT name FROM indexes").fetchall() == [("notes",)]


def test_a_present_catalog_is_not_copied(tmp_path: Path) -> None:
    Catalog(tmp_path / "c").close()
    Catalog(tmp_path / "c").close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


def test_a_step_that_fails_leaves_the_catalog_as_it_was_and_is_done_at_the_next_start(
    tmp_path: Path,
) -> None:
    path = tmp_path / "c"
    lay_out(path, 1)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE dropped_generations (in_the_way)")
    before = shape(path)
    with pytest.raises(CatalogError, match="dropped_generations"):
        Catalog(path)
    with closing(sqlite3.connect(path)) as connection:
        # The first step is done and noted, the second one left nothing.
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        connection.execute("DROP TABLE origins")
        assert shape(path).keys() == before.keys()
        connection.execute("PRAGMA user_version = 1")
        connection.execute("DROP TABLE dropped_generations")
    with Catalog(path) as catalog:
        assert catalog.indexes.get("notes").key == 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_chunks_from_before_full_text_wait_for_it_and_are_found_then(tmp_path: Path) -> None:
    path = tmp_path / "c"
    lay_out(path, 2)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "INSERT INTO documents (id, index_id, path, size_bytes, mtime_ns, sha256, title, kind,"
            " indexed_at) VALUES (1, 1, '/a', 1, 1, '', 'Guide', 'text', 'then');"
            "INSERT INTO chunks (index_id, document_id, ordinal, span_start, span_end, heading,"
            " text_hash, text) VALUES (1, 1, 0, 0, 1, '[]', 'h', 'red apples'),"
            " (1, 1, 1, 1, 2, '[]', 'i', 'green pears'), (1, 1, 2, 2, 3, '[]', 'h', 'red apples')"
        )
    with Catalog(path) as catalog:
        notes = catalog.indexes.get("notes")
        assert catalog.lexical.pending(1) == 3
        assert not catalog.lexical.search(notes, ["appl"], count=5)
        assert catalog.lexical.index_pending(1)
        assert not catalog.lexical.index_pending(1)
        [hit] = catalog.lexical.search(notes, ["appl"], count=5)
        assert hit.id == 1
        assert catalog.lexical.look(1).is_sound
