"""Models copied, kept side by side, verified again; canaries; pulls over HTTP."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embedserve.engine.scheduler import Scheduler
from embedserve.errors import (
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
from embedserve.services.models import Machine, PullRequest
from embedserve.types import BatchTokens
from tests.live import LiveServer
from tests.tiny_models import Exported

NAME = "all-minilm"
COUNTS = 400
"""One in forty met a folder that had gone."""
COME_AND_GO = """
import os, sys
os.chdir(sys.argv[1])
while True:
    for number in range(40):
        os.mkdir(str(number))
    for number in range(40):
        os.rmdir(str(number))
"""


@pytest.fixture
def models(model_home: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "home" / "models"
    shutil.copytree(model_home / "models", folder)
    return folder


@contextmanager
def encoders_of(models: Path) -> Iterator[Encoders]:
    scheduler = Scheduler(workers=1, batch_tokens=BatchTokens(64, 64), queue_tokens=10_000)
    yield Encoders(models, scheduler, device="cpu")
    scheduler.close()


@contextmanager
def library_of(models: Path, encoders: Encoders) -> Iterator[ModelLibrary]:
    library = ModelLibrary(models, encoders, Machine("cpu", 1, round_seconds=0.01))
    yield library
    library.close()


@pytest.fixture
def encoders(models: Path) -> Iterator[Encoders]:
    with encoders_of(models) as encoders:
        yield encoders


@pytest.fixture
def library(models: Path, encoders: Encoders) -> Iterator[ModelLibrary]:
    with library_of(models, encoders) as library:
        yield library


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
    scheduler = Scheduler(workers=1, batch_tokens=BatchTokens(64, 64), queue_tokens=10_000)
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


def test_verification_without_the_checkpoint_says_so(quick_models: Path, tmp_path: Path) -> None:
    models = Path(shutil.copytree(quick_models, tmp_path / "models"))
    rewrite(models, source="folder /no/such/folder")
    with encoders_of(models) as encoders, library_of(models, encoders) as library:
        found = library.verify(NAME)
    assert found.fidelity is None
    assert "/no/such/folder" in found.why_no_fidelity
    assert found.canary == "exact"
    assert found.failures == ()
    assert found.performance.tokens_per_s_mixed > 0


def test_verification_against_fp32_finds_a_card_that_is_not_true(
    exported: dict[str, Exported], models: Path, library: ModelLibrary
) -> None:
    checkpoint = exported["bert-ready"].folder / "checkpoint"
    library.pull(PullRequest("tiny", checkpoint, recipe="fp32", engine="onnxruntime"))
    assert library.verify("tiny").failures == ()
    card = installed.resolve(models, "tiny").manifest.fidelity
    rewrite(models, "tiny", fidelity=replace(card, cosine_mean=card.cosine_mean - 0.01))
    found = library.verify("tiny")
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


def test_what_no_pull_could_do_is_refused_before_it_waits_for_others(
    library: ModelLibrary,
) -> None:
    for request, message in (
        (PullRequest(NAME, recipe="int3"), "Unknown recipe `int3`"),
        (PullRequest(NAME, engine="abacus"), "Unknown engine `abacus`"),
        (PullRequest(f"{NAME}:int8", recipe="fp32"), "says `int8`, `--recipe` says `fp32`"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            library.start_pull(request)


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
        assert (unknown.status_code, unknown.json()) == (404, {"error": 'model "nope" not found'})
        assert live.http.post("/api/copy", json={"source": NAME}).status_code == 400
        folder = live.http.post("/api/pull", json={"model": "x", "from": "/etc"})
        assert folder.status_code == 400
        assert "--from" in folder.json()["error"]
        for is_stream in (True, False):
            asked: dict[str, object] = {"model": NAME, "recipe": "nonsense", "stream": is_stream}
            unknown = live.http.post("/api/pull", json=asked)
            assert unknown.status_code == 400
            assert "Unknown recipe `nonsense`" in unknown.json()["error"]


def test_folders_that_vanish_while_they_are_counted_are_no_failure(tmp_path: Path) -> None:
    """Listing the models while a pull clears up its folder was a failure once in a while."""
    (tmp_path / "kept").write_bytes(b"123")
    with subprocess.Popen([sys.executable, "-c", COME_AND_GO, str(tmp_path)]) as churn:
        try:
            while not (tmp_path / "0").exists():
                assert churn.poll() is None
            assert {installed.disk_bytes(tmp_path) for _ in range(COUNTS)} == {3}
        finally:
            churn.kill()
