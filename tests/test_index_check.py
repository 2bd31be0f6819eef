"""What a check says of an index, and what a repair can and cannot do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from embedserve.errors import IndexNotFoundError
from embedserve.services.index_check import CheckReport, IndexCheck, Progress
from embedserve.services.lexical_worker import LexicalWorker
from embedserve.store.catalog import Catalog
from embedserve.store.lexical_rows import remove_chunks
from tests.fake_house import House, Models, served
from tests.fakes import MemoryVectorIndex
from tests.store_samples import document, unit_vectors, wait_until


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Serve an index of forty chunks with the model `large`, whole in every part."""
    with Catalog(tmp_path / "c") as catalog:
        models = Models()
        former = models.small.spec.artefact
        index = catalog.indexes.create("notes", "{}", model="small", artefact=former, dimensions=8)
        job = catalog.jobs.create("notes", "/d").id
        version = document("/d/a", [f"text {number}" for number in range(40)])
        catalog.documents.commit(index, version, job_id=job, outcome="added")
        catalog.jobs.finish(job, "succeeded")
        with served(catalog, models, MemoryVectorIndex()) as house:
            house.put("large")  # whose vectors then follow from what is embedded for a chunk
            house.wait_for_jobs()
            assert house.worker.wait_until_applied(index.id, 20)
            yield house


def check(house: House, *, repairs: bool = False) -> CheckReport:
    checks = IndexCheck(
        house.catalog, house.vector_index, house.indexes, house.worker, cast(Any, house.models)
    )
    *steps, report = checks.run("notes", repairs=repairs)
    assert all(isinstance(step, Progress) for step in steps)
    assert isinstance(report, CheckReport)
    return report


def damage(house: House, sql: str) -> None:
    with house.catalog._database.write() as connection:
        connection.execute(sql, (house.index().artefact,))


def codes(report: CheckReport) -> list[tuple[str, int]]:
    return [(fault.code, fault.count) for fault in report.faults]


def test_faults_of_both_sides_are_repaired_in_one_go(house: House) -> None:
    sound = house.catalog.chunks.vectors_of(house.index(), range(1, 41)).vectors
    rows = house.vector_index.rows[house.index().key]
    damage(house, "DELETE FROM vectors WHERE artefact = ? AND rowid % 20 = 0")
    damage(house, "UPDATE vectors SET vector = zeroblob(64) WHERE artefact = ? AND rowid % 20 = 1")
    damage(house, "UPDATE vectors SET vector = x'ff' WHERE artefact = ? AND rowid % 20 = 2")
    del rows[7]
    rows[900] = unit_vectors(1, dimensions=16)[0]
    rows[8] = rows[8] + np.float32(0.01)
    assert codes(check(house)) == [("bad_vectors", 6)]
    report = check(house, repairs=True)
    assert report.faults == ()
    assert report.stored == 40
    assert report.counts.vectors == 40
    assert sorted(house.vector_index.rows[house.index().key]) == list(range(1, 41))
    again = house.catalog.chunks.vectors_of(house.index(), range(1, 41)).vectors
    assert np.array_equal(again, sound)
    assert codes(check(house)) == []


def test_what_the_vector_index_has_too_much_or_too_little_is_named(house: House) -> None:
    rows = house.vector_index.rows[house.index().key]
    del rows[7]
    rows[900] = unit_vectors(1, dimensions=16)[0]
    rows[8] = rows[8] + np.float32(0.001)
    report = check(house)
    assert codes(report) == [("missing", 1), ("extra", 1), ("differing", 1)]
    assert "chunk ids 900" in report.faults[1].message
    report = check(house, repairs=True)
    assert (report.faults, len(report.repaired)) == ((), 3)


def test_texts_that_were_embedded_otherwise_are_not_guessed(house: House) -> None:
    damage(house, "DELETE FROM vectors WHERE artefact = ? AND rowid % 20 = 0")
    with house.catalog._database.write() as connection:
        connection.execute("UPDATE documents SET title = 'another'")
    report = check(house, repairs=True)
    assert codes(report) == [("bad_vectors", 2)]
    assert "embedded with other words" in report.faults[0].hint


def test_full_text_is_looked_at_and_mended(house: House) -> None:
    lexical, index = house.catalog.lexical, house.index()
    with house.catalog._database.write() as connection:
        remove_chunks(connection, index.id, [3, 4])
    report = check(house)
    assert codes(report) == [("text_missing", 2)]
    report = check(house, repairs=True)
    assert (report.faults, [fault.code for fault in report.repaired]) == ((), ["text_missing"])
    damage(house, "UPDATE lexical_blocks SET postings = zeroblob(9) WHERE ? != ''")
    assert [code for code, _ in codes(check(house))] == ["text_damaged"]
    assert check(house, repairs=True).faults == ()
    worker = LexicalWorker(house.catalog)
    worker.start()
    wait_until(lambda: not lexical.pending(index.id), within_s=20)
    worker.stop()
    assert lexical.look(index.id).is_sound
    assert len(lexical.search(index, ["text"], count=50)) == 40


def test_a_vector_index_that_is_down_is_said(house: House) -> None:
    house.vector_index.is_down = True
    report = check(house)
    assert (codes(report), report.stored) == ([("vector_index_down", 1)], None)
    house.vector_index.is_down = False
    checks = IndexCheck(
        house.catalog, house.vector_index, house.indexes, house.worker, cast(Any, house.models)
    )
    with pytest.raises(IndexNotFoundError):
        checks.run("none", repairs=False)


def test_an_index_that_takes_another_model_meanwhile_is_looked_at_again(house: House) -> None:
    checks = IndexCheck(
        house.catalog, house.vector_index, house.indexes, house.worker, cast(Any, house.models)
    )
    steps = checks.run("notes", repairs=True)
    assert next(steps) == Progress("reading the catalog's file")
    assert next(steps) == Progress("reading vectors", 40)
    house.put("small")
    house.wait_for_jobs()
    *rest, report = steps
    assert Progress("reading vectors", 40) in rest, "once more"
    assert isinstance(report, CheckReport)
    assert (report.faults, report.repaired, report.sampled) == ((), (), 40)
    assert house.index().model == "small"
