"""Models copied, kept side by side, verified again; vectors cut; indexes that change machines."""

import base64
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedserve.engine.scheduler import Scheduler
from embedserve.errors import (
    ConflictError,
    InvalidNameError,
    InvalidRequestError,
    ModelError,
    ModelNotFoundError,
)
from embedserve.models import installed, manifest
from embedserve.models.installed import InstalledModel
from embedserve.services.canary import check_canary
from embedserve.services.encoders import Encoders
from embedserve.services.model_library import ModelLibrary
from embedserve.services.models import Machine
from embedserve.services.origins import Origin, VectorOrigins
from embedserve.services.shorter import cut, warnings_of
from embedserve.store.catalog import Catalog
from embedserve.types import EncoderSpec, Index, Vectors
from tests.live import LiveServer

NAME = "all-minilm"


@pytest.fixture
def models(model_home: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "models"
    shutil.copytree(model_home / "models", folder)
    return folder


@pytest.fixture
def encoders(models: Path) -> Iterator[Encoders]:
    scheduler = Scheduler(workers=1, micro_batch_tokens=64, queue_tokens=10_000)
    yield Encoders(models, scheduler, device="cpu")
    scheduler.close()


@pytest.fixture
def library(models: Path, encoders: Encoders) -> Iterator[ModelLibrary]:
    library = ModelLibrary(models, encoders, Machine("cpu", 1))
    yield library
    library.close()


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with Catalog(tmp_path / "catalog.sqlite3") as catalog:
        yield catalog


def rewrite(models: Path, name: str = NAME, **changes: object) -> InstalledModel:
    """Change what the manifest of an installed model says."""
    model = installed.resolve(models, name)
    manifest.write(model.folder, replace(model.manifest, **changes))  # type: ignore[arg-type]
    return installed.resolve(models, name)


def nudged(vector: NDArray[np.float32], distance: float) -> NDArray[np.float32]:
    other = vector.copy()
    other[0] += np.float32(distance)
    unit: NDArray[np.float32] = other / np.linalg.norm(other)
    return unit


# -- names ------------------------------------------------------------------------------------


def test_copy_has_its_own_name_and_shares_graph_and_disk(
    models: Path, encoders: Encoders, library: ModelLibrary
) -> None:
    before = library.disk_bytes()
    encoder = encoders.get(NAME)
    library.copy("all-minilm:22m", "Mine:v1")
    copied = installed.resolve(models, "mine:v1")
    assert copied.manifest.name == "Mine:v1"
    manifest.verify(copied.folder, copied.manifest)
    assert not any(path.is_symlink() for path in copied.folder.iterdir())
    assert encoders.get("mine:v1") is encoder
    assert library.disk_bytes() - before < 100_000  # a manifest; the graph is there once
    library.remove(NAME)
    manifest.verify(copied.folder, copied.manifest)
    assert encoders.get("mine:v1") is encoder


def test_files_are_copied_where_they_cannot_be_linked(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    source = elsewhere / f"embedserve-test-{os.getpid()}"
    source.write_bytes(b"content")
    try:
        installed.link_or_copy(source, tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == b"content"
    finally:
        source.unlink()


def test_copy_onto_itself_changes_nothing(models: Path, library: ModelLibrary) -> None:
    before = installed.resolve(models, NAME)
    library.copy(NAME, "ALL-MINILM:latest")
    assert installed.resolve(models, NAME) == before


def test_copy_to_a_tag_of_another_precision_is_refused(library: ModelLibrary) -> None:
    with pytest.raises(InvalidNameError, match="says `fp32`, but `all-minilm:latest` is"):
        library.copy(NAME, "all-minilm:fp32")


def test_precision_tags_answer_for_themselves_alone(models: Path, library: ModelLibrary) -> None:
    model = installed.resolve(models, NAME)
    library.copy(NAME, f"{NAME}:{model.manifest.recipe}")
    library.remove(NAME)
    tagged = installed.resolve(models, f"{NAME}:22m-{model.manifest.recipe}")
    assert tagged.manifest.artefact == model.manifest.artefact
    with pytest.raises(ModelNotFoundError, match=r"installed of this model: `all-minilm:"):
        installed.resolve(models, NAME)
    with pytest.raises(ModelNotFoundError, match=r"installed of this model"):
        installed.resolve(models, f"{NAME}:fp32")


# -- rerankers, devices, canaries -------------------------------------------------------------


def test_reranker_is_listed_as_such_and_gives_no_embeddings(
    models: Path, encoders: Encoders, library: ModelLibrary
) -> None:
    library.copy(NAME, "judge")
    rewrite(models, "judge", kind="reranker")
    capabilities = {report.name: report.capability for report in library.reports()}
    assert capabilities == {"all-minilm:latest": "embedding", "judge:latest": "rerank"}
    with pytest.raises(InvalidRequestError, match=r"is a reranker.*Use `all-minilm:latest`"):
        encoders.get("judge")


def test_model_of_a_cpu_engine_on_a_gpu_is_to_be_pulled_again(models: Path) -> None:
    model = installed.resolve(models, NAME)
    rewrite(models, runtime=replace(model.manifest.runtime, engine="openvino"))
    scheduler = Scheduler(workers=1, micro_batch_tokens=64, queue_tokens=10_000)
    with pytest.raises(ModelError, match="`EMBEDSERVE_DEVICE=cuda embedserve pull all-minilm"):
        Encoders(models, scheduler, device="cuda").get(NAME)
    scheduler.close()


def test_canary_says_exact_or_what_has_changed(models: Path, encoders: Encoders) -> None:
    model = installed.resolve(models, NAME)
    encoder = encoders.get(NAME)
    assert check_canary(encoder, model).words == "exact"
    nearly = nudged(np.array(model.manifest.canary.vector, dtype=np.float32), 0.005)
    canary = replace(model.manifest.canary, vector=tuple(nearly.tolist()))
    same = check_canary(encoder, replace(model, manifest=replace(model.manifest, canary=canary)))
    assert not same.is_exact
    assert "though CPU class and engine version are the same" in same.words
    performance = replace(model.manifest.performance, cpu="z80", engine_version="abacus 1")
    moved = replace(model.manifest, canary=canary, performance=performance)
    words = check_canary(encoder, replace(model, manifest=moved)).words
    assert words.startswith("within tolerance: cosine 0.999")
    assert "made on `z80`" in words
    assert "made with abacus 1" in words


def test_loaded_model_tells_its_canary(encoders: Encoders, library: ModelLibrary) -> None:
    assert "not checked yet" in library.report(NAME).facts["canary"]
    encoders.get(NAME)
    assert library.report(NAME).facts["canary"] == "exact"


# -- verification -----------------------------------------------------------------------------


def test_verification_without_the_checkpoint_says_so(models: Path, library: ModelLibrary) -> None:
    rewrite(models, source="folder /no/such/folder")
    found = library.verify(NAME)
    assert found.fidelity is None
    assert "/no/such/folder" in found.why_no_fidelity
    assert found.canary == "exact"
    assert found.failures == ()
    assert found.performance.tokens_per_s_mixed > 0


def test_verification_against_fp32_finds_a_card_that_is_not_true(
    models: Path, library: ModelLibrary
) -> None:
    card = installed.resolve(models, NAME).manifest.fidelity
    rewrite(models, fidelity=replace(card, cosine_mean=card.cosine_mean - 0.01))
    found = library.verify(NAME)
    assert found.fidelity is not None
    assert found.fidelity.cosine_mean == pytest.approx(card.cosine_mean, abs=5e-4)
    [failure] = found.failures
    assert "cosine mean is" in failure


def test_verification_refuses_damaged_files(models: Path, library: ModelLibrary) -> None:
    path = installed.resolve(models, NAME).folder / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="has sha256"):
        library.verify(NAME)


# -- shorter vectors --------------------------------------------------------------------------


def spec(**changes: object) -> EncoderSpec:
    plain = EncoderSpec("a", Path("a"), Path("b"), max_tokens=8, dimensions=8)
    return replace(plain, **changes)  # type: ignore[arg-type]


def unit_rows() -> Vectors:
    rows = np.random.default_rng(1).normal(0.5, 1, (5, 8)).astype(np.float32)
    unit: Vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def test_shorter_vectors_are_the_leading_dimensions_of_unit_length() -> None:
    rows = unit_rows()
    short = cut(rows, 3, spec())
    assert np.allclose(short, rows[:, :3] / np.linalg.norm(rows[:, :3], axis=1, keepdims=True))
    for all_of_them in (None, 0, -1, 8, 100):
        assert cut(rows, all_of_them, spec()) is rows


def test_vectors_are_standardized_before_the_cut_where_the_card_says_so() -> None:
    rows = unit_rows()
    short = cut(rows, 3, spec(layer_norm_before_cut=True))
    standard = (rows - rows.mean(axis=1, keepdims=True)) / rows.std(axis=1, keepdims=True)
    expected = standard[:, :3] / np.linalg.norm(standard[:, :3], axis=1, keepdims=True)
    assert np.allclose(short, expected, atol=1e-6)
    assert not np.allclose(short, cut(rows, 3, spec()), atol=1e-2)


@pytest.mark.parametrize(
    ("dimensions", "is_warned"), [(None, False), (8, False), (9, False), (4, False), (3, True)]
)
def test_lengths_that_the_model_was_not_trained_for_are_said(
    dimensions: int | None, is_warned: bool
) -> None:
    found = warnings_of("m", dimensions, spec(matryoshka_dimensions=(4, 2)))
    assert bool(found) == is_warned
    if is_warned:
        assert "only for 8, 4, 2" in found[0]


# -- indexes and the machine that filled them -------------------------------------------------


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


def test_catalog_of_version_1_gets_its_origins(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite3"
    Catalog(path).close()
    connection = sqlite3.connect(path)
    connection.executescript("DROP TABLE origins; PRAGMA user_version = 1")
    connection.close()
    with Catalog(path) as catalog:
        assert catalog.origins.add("a", "first") == "first"
        assert catalog.origins.add("a", "second") == "first"


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
        assert live.http.get("/indexes/notes").json()["warnings"] == reply["warnings"]


# -- over HTTP --------------------------------------------------------------------------------


def test_models_are_copied_and_pulled_over_http(models: Path) -> None:
    with LiveServer(models.parent) as live:
        body = {"source": NAME, "destination": "mine"}
        copied = live.http.post("/api/copy", json=body)
        assert (copied.status_code, copied.content) == (200, b"")
        one, other = (
            live.http.post("/api/embed", json={"model": name, "input": "a"}).json()["embeddings"]
            for name in (NAME, "mine")
        )
        assert one == other
        unknown = live.http.post("/api/copy", json={**body, "source": "nope"})
        assert (unknown.status_code, unknown.json()) == (404, {"error": "model 'nope' not found"})
        assert live.http.post("/api/copy", json={"source": NAME}).status_code == 400
        folder = live.http.post("/api/pull", json={"model": "x", "from": "/etc"})
        assert folder.status_code == 400
        assert "--from" in folder.json()["error"]
        body = {"model": NAME, "recipe": "nonsense"}
        lines = live.http.post("/api/pull", json=body).text.splitlines()
        assert "Unknown recipe `nonsense`" in json.loads(lines[-1])["error"]
