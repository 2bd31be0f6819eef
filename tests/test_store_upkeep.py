"""Room given back, also by a catalog from before that could be done in steps."""

import sqlite3
from contextlib import closing
from pathlib import Path

from embedserve.store.catalog import Catalog
from embedserve.store.model_changes import ModelChange
from tests.store_samples import ARTEFACT, DIMENSIONS, document

TEXTS = [f"text {n}" + " and more of it" * 400 for n in range(400)]


def emptied(path: Path) -> None:
    """Fill a catalog and delete most of it again."""
    with Catalog(path) as catalog:
        index = catalog.indexes.create(
            "i", "{}", model="m", artefact=ARTEFACT, dimensions=DIMENSIONS
        )
        job = catalog.jobs.create("i", "/d").id
        for name, texts in (("a", TEXTS), ("b", TEXTS[:3])):
            catalog.documents.commit(
                index, document(f"/d/{name}", texts), job_id=job, outcome="added"
            )
        catalog.documents.delete(index, "/d/a", job_id=job)


def vacuum(path: Path) -> int:
    with Catalog(path) as catalog:
        unused = catalog.integrity.count_unused_vectors()
        deleted = sum(catalog.upkeep.delete_unused_vectors())
        assert deleted == unused
        assert catalog.integrity.count_unused_vectors() == 0
        while catalog.upkeep.release_pages():
            pass
        catalog.upkeep.fold_log()
        assert catalog.chunks.count(1) == 3
        assert catalog.integrity.file_problems() == []
        assert path.stat().st_size == catalog.upkeep.size_bytes()
        assert catalog.indexes.counts(1).vectors == 3
    return deleted


def test_free_pages_go_back_to_the_system(tmp_path: Path) -> None:
    emptied(tmp_path / "c")
    before = (tmp_path / "c").stat().st_size
    assert vacuum(tmp_path / "c") == 397
    assert (tmp_path / "c").stat().st_size < before / 5


def test_an_older_catalog_is_written_anew_once(tmp_path: Path) -> None:
    path = tmp_path / "c"
    emptied(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = NONE")
        connection.execute("VACUUM")
        connection.execute("CREATE TABLE ballast AS SELECT zeroblob(2000000) AS b")
        connection.execute("DROP TABLE ballast")
    before = path.stat().st_size
    vacuum(path)
    assert path.stat().st_size < before - 1_900_000
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (2,)


def test_what_comes_to_be_used_meanwhile_is_kept(tmp_path: Path) -> None:
    emptied(tmp_path / "c")
    with Catalog(tmp_path / "c") as catalog:
        index = catalog.indexes.get("i")
        other = catalog.indexes.create("j", "{}", model="n", artefact="b" * 64, dimensions=8)
        job = catalog.jobs.create("i", "/d").id
        deletes = catalog.upkeep.delete_unused_vectors(batch=100)
        assert next(deletes) == 100
        again = document("/d/a", TEXTS)
        catalog.documents.commit(index, again, job_id=job, outcome="added")
        assert next(deletes) == 0, "all of these are used again"
        catalog.documents.delete(index, "/d/a", job_id=job)
        change = ModelChange(other.id, "{}", "m", ARTEFACT, DIMENSIONS)
        assert catalog.model_changes.become_at_once(other, change), "begins to look anew"
        assert sum(deletes) == 397
        assert catalog.indexes.counts(index.id).vectors == 3
