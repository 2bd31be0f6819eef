"""Indexes that change machines: said, or refused where the model gives other vectors there."""

import base64
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedserve.engine.scheduler import Scheduler
from embedserve.errors import ConflictError
from embedserve.services.encoders import Encoders
from embedserve.services.origins import Origin, VectorOrigins
from embedserve.store.catalog import Catalog
from embedserve.types import BatchTokens, Index
from tests.live import LiveServer

NAME = "all-minilm"


@pytest.fixture
def models(quick_models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(quick_models, tmp_path / "home" / "models"))


@pytest.fixture
def encoders(models: Path) -> Iterator[Encoders]:
    scheduler = Scheduler(workers=1, batch_tokens=BatchTokens(64, 64), queue_tokens=10_000)
    yield Encoders(models, scheduler, device="cpu")
    scheduler.close()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog.sqlite3") as catalog:
        yield catalog


def nudged(vector: NDArray[np.float32], distance: float) -> NDArray[np.float32]:
    other = vector.copy()
    other[0] += np.float32(distance)
    unit: NDArray[np.float32] = other / np.linalg.norm(other)
    return unit


@pytest.fixture
def index(catalog: Catalog, encoders: Encoders) -> Index:
    spec = encoders.get(NAME).spec
    return catalog.indexes.create(
        "notes", "{}", model=NAME, artefact=spec.artefact, dimensions=spec.dimensions
    )


def moved(here: Origin, distance: float) -> Origin:
    packed = base64.b64encode(nudged(here.vector, distance).tobytes()).decode()
    return replace(here, cpu="z80", vector_base64=packed)


def here_of(encoders: Encoders) -> Origin:
    canary = encoders.canary(encoders.get(NAME).spec.artefact)
    assert canary is not None
    return Origin.of(canary)


def test_index_of_this_machine_has_nothing_to_say(
    catalog: Catalog, encoders: Encoders, index: Index
) -> None:
    origins = VectorOrigins(catalog, encoders)
    origins.begin(encoders.get(NAME))
    assert origins.check(index, encoders.get(NAME)) == []
    assert origins.warnings(index) == []


def test_index_of_another_machine_is_said_or_refused(
    catalog: Catalog, encoders: Encoders, index: Index
) -> None:
    origins, here = VectorOrigins(catalog, encoders), here_of(encoders)
    catalog.origins.add(index.artefact, moved(here, 0.005).write())
    [warning] = origins.check(index, encoders.get(NAME))
    assert "`z80`" in warning
    assert "within tolerance" in warning
    assert origins.warnings(index) == [warning]
    assert catalog.origins.renew(index.artefact, moved(here, 1.0).write())
    with pytest.raises(ConflictError, match="does not give here"):
        origins.check(index, encoders.get(NAME))
    assert "does not give here" in origins.warnings(index)[0]


def test_new_index_takes_no_vectors_of_another_machine(
    catalog: Catalog, encoders: Encoders, index: Index
) -> None:
    catalog.origins.add(index.artefact, moved(here_of(encoders), 0.005).write())
    VectorOrigins(catalog, encoders).begin(encoders.get(NAME))
    assert catalog.origins.get(index.artefact) == here_of(encoders).write()
    assert VectorOrigins(catalog, encoders).check(index, encoders.get(NAME)) == []


def test_copied_index_is_said_to_be_from_elsewhere(models: Path, tmp_path: Path) -> None:
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "note.md").write_text("The port is 11435.\n")
    home = models.parent
    with LiveServer(home, allow=[tmp_path / "documents"]) as live:
        live.ingest("notes", tmp_path / "documents")
        assert live.http.get("/indexes/notes").json()["warnings"] == []
    connection = sqlite3.connect(home / "catalog.sqlite3")
    [text] = connection.execute("SELECT origin FROM origins").fetchone()
    origin = moved(Origin.read(text), 0.005)
    with connection:
        connection.execute("UPDATE origins SET origin = ?", (origin.write(),))
    connection.close()
    with LiveServer(home, allow=[tmp_path / "documents"]) as live:
        reply = live.http.post("/indexes/notes/query", json={"query": "port"}).json()
        assert len(reply["hits"]) == 1
        assert "within tolerance" in reply["warnings"][0]
        assert live.http.get("/indexes/notes").json()["warnings"] == reply["warnings"][:1]
