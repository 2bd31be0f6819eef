"""Models in memory: who holds one keeps it, whatever happens to its files."""

import gc
import shutil
import time
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedserve.engine.scheduler import Scheduler
from embedserve.errors import ConflictError, ModelError, ModelNotFoundError, OverloadedError
from embedserve.models import installed
from embedserve.models.names import parse_name
from embedserve.services.encoders import Encoders, counted_bytes
from embedserve.services.model_library import ModelLibrary
from embedserve.services.models import Machine, PullRequest, pull_model
from embedserve.services.residency import Residency
from embedserve.services.workshop import Workshop
from embedserve.types import BatchTokens
from tests.sum_backend import DIMENSIONS, SumBackend, text
from tests.tiny_models import Exported

MACHINE = Machine("cpu", 1)


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    scheduler = Scheduler(workers=1, batch_tokens=BatchTokens(64, 64), queue_tokens=10_000)
    yield scheduler
    scheduler.close()


def request_of(model: Exported, name: str) -> PullRequest:
    """A pull of seconds: the checkpoint has a ready graph, and one recipe is tried."""
    return PullRequest(name, model.folder / "checkpoint", recipe="fp32", engine="onnxruntime")


@pytest.fixture(scope="session")
def pulled(exported: dict[str, Exported], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with `one`, made once; tests work on copies."""
    folder = tmp_path_factory.mktemp("pulled")
    workshop = Workshop()
    request = request_of(exported["bert-ready"], "one")
    pull_model(request, models_folder=folder, workshop=workshop, machine=MACHINE)
    workshop.close()
    return folder


@pytest.fixture
def models(pulled: Path, tmp_path: Path) -> Path:
    """A models folder with one artefact under the names `one` and `two`."""
    folder = tmp_path / "models"
    shutil.copytree(pulled, folder)
    library = folder / "registry.ollama.ai" / "library"
    shutil.copytree(library / "one", library / "two")
    return folder


@pytest.fixture
def encoders(models: Path, scheduler: Scheduler) -> Encoders:
    return Encoders(models, scheduler, device="cpu")


@pytest.fixture
def library(models: Path, encoders: Encoders) -> Iterator[ModelLibrary]:
    library = ModelLibrary(models, encoders, MACHINE)
    yield library
    library.close()


def test_removed_model_serves_those_who_hold_it_and_nobody_else(
    encoders: Encoders, library: ModelLibrary
) -> None:
    library.remove("two")
    held = encoders.get("one")
    before = held.encode(["a text"])
    library.remove("one")
    assert np.array_equal(held.encode(["a text"]), before)
    with pytest.raises(ModelNotFoundError):
        encoders.get("one")


def test_removed_model_is_freed_by_its_last_holder(
    encoders: Encoders, library: ModelLibrary
) -> None:
    held = encoders.get("one")
    trace = weakref.ref(held)
    library.remove("one")
    library.remove("two")
    gc.collect()
    assert trace() is held
    del held
    gc.collect()
    assert trace() is None


def test_removing_one_name_of_an_artefact_leaves_the_other_loaded(
    encoders: Encoders, library: ModelLibrary
) -> None:
    held = encoders.get("one")
    assert encoders.get("two") is held
    library.remove("two")
    assert encoders.get("one") is held


def test_loaded_models_are_found_at_once_after_the_folder_has_changed(
    encoders: Encoders, library: ModelLibrary
) -> None:
    """A name that has to be looked up waits with those whose models are loaded."""
    held = encoders.get("one")
    encoders.get("two")
    library.copy("one", "three")
    assert encoders.find("one") is encoders.find("two") is held
    library.remove("two")
    assert encoders.find("One:latest") is held
    assert encoders.find("two") is None


def test_only_the_exact_name_is_removed(models: Path, library: ModelLibrary) -> None:
    place = models / "registry.ollama.ai" / "library"
    (place / "one").rename(place / "all-minilm")
    alias = "hf.co/sentence-transformers/all-MiniLM-L6-v2"
    assert library.report(alias).name == "all-minilm:latest"
    with pytest.raises(ModelNotFoundError):
        library.remove(alias)
    assert library.report("all-minilm").name == "all-minilm:latest"


def test_removal_does_not_wait_for_a_pull(models: Path, library: ModelLibrary) -> None:
    with (
        installed.lock(models, parse_name("one")),
        pytest.raises(ConflictError, match="being pulled"),
    ):
        library.remove("one")
    assert library.report("one").name == "one:latest"


def test_pull_that_replaces_a_loaded_model_is_served_at_once(
    encoders: Encoders, library: ModelLibrary, exported: dict[str, Exported]
) -> None:
    held = encoders.get("one")
    before = held.encode(["a text"])
    library.pull(request_of(exported["xlm-roberta-ready"], "one"))
    assert not encoders.is_loaded("one")
    fresh = encoders.get("one")
    assert fresh.spec.artefact != held.spec.artefact
    assert not np.array_equal(fresh.encode(["a text"]), before)
    assert np.array_equal(held.encode(["a text"]), before)
    assert encoders.get("two") is held


class RemovingScheduler(Scheduler):
    """Runs `during` while the first text (a canary) is being embedded."""

    def submit(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  the base's own signature
        action, self.during = self.during, lambda: None
        action()
        return super().submit(*args, **kwargs)

    during = staticmethod(lambda: None)


def test_model_that_vanishes_while_it_loads_is_not_remembered(models: Path) -> None:
    scheduler = RemovingScheduler(workers=1, batch_tokens=BatchTokens(64, 64), queue_tokens=10_000)
    encoders = Encoders(models, scheduler, device="cpu")
    library = ModelLibrary(models, encoders, MACHINE)
    scheduler.during = lambda: library.remove("one")
    encoders.get("one")
    assert not encoders.is_loaded("one")
    with pytest.raises(ModelNotFoundError):
        encoders.get("one")
    scheduler.close()


def test_names_that_do_not_exist_leave_nothing_behind(encoders: Encoders) -> None:
    for number in range(10):
        with pytest.raises(ModelNotFoundError):
            encoders.get(f"no-{number}")
    assert encoders.get("one") is encoders.get("  ONE:latest ")
    held = {**vars(encoders), **vars(encoders._residents)}
    sizes = {name: len(value) for name, value in held.items() if isinstance(value, dict)}
    assert sizes == {
        "_loading": 1,
        "_only_names": 0,
        "_by_artefact": 1,
        "_by_name": 1,
        "unloads": 0,
    }


def wait_until_unloaded(encoders: Encoders, name: str) -> None:
    end_s = time.monotonic() + 10
    while encoders.is_loaded(name):
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_model_that_is_let_go_is_freed_though_its_worker_waits(
    models: Path, scheduler: Scheduler
) -> None:
    encoders = Encoders(models, scheduler, device="cpu", residency=Residency(keep_alive_s=0.05))
    encoder = encoders.get("one")
    before = encoder.encode(["a text"])
    [loaded] = encoders.loaded()
    assert (loaded.name, loaded.artefact) == ("one:latest", encoder.spec.artefact)
    assert loaded.counted_bytes > 0
    traces: list[weakref.ref[Any]] = [weakref.ref(encoder), weakref.ref(encoder._backend)]
    del encoder
    wait_until_unloaded(encoders, "one")
    end_s = time.monotonic() + 10
    while any(trace() is not None for trace in traces):
        assert time.monotonic() < end_s, "something still holds the graph"
        time.sleep(0.01)
    assert np.array_equal(encoders.get("two").encode(["a text"]), before)
    assert (encoders.loads, encoders.unloads("expired")) == (2, 1)
    encoders.close()


def test_default_model_stays_also_after_the_folder_has_changed(
    models: Path, scheduler: Scheduler
) -> None:
    encoders = Encoders(
        models,
        scheduler,
        device="cpu",
        default_model="two",
        residency=Residency(keep_alive_s=0.01),
    )
    encoders.get("two")
    encoders.refresh()
    time.sleep(0.1)
    [loaded] = encoders.loaded()
    assert loaded.expires_at is None
    encoders.close()


def test_model_that_is_larger_than_the_budget_is_not_loaded(
    models: Path, scheduler: Scheduler
) -> None:
    encoders = Encoders(models, scheduler, device="cpu", residency=Residency(memory_bytes=1))
    with pytest.raises(ModelError, match="EMBEDSERVE_MODELS_MEMORY_BYTES"):
        encoders.get("one")
    assert encoders.loaded() == []


def test_model_counts_what_was_measured_or_a_multiple_of_its_files(models: Path) -> None:
    model = installed.resolve(models, "one")

    def counted(resident_bytes: int) -> int:
        performance = replace(model.manifest.performance, resident_bytes=resident_bytes)
        manifest = replace(model.manifest, performance=performance)
        return counted_bytes(replace(model, manifest=manifest))

    assert counted(0) == 4 * model.size_bytes
    assert counted(10**9) == 10**9 - 84 * 2**20
    assert counted(1) == model.size_bytes


def test_model_for_texts_that_are_alone_counts_twice_and_gives_the_same_vectors(
    models: Path, encoders: Encoders, scheduler: Scheduler
) -> None:
    wide = Encoders(models, scheduler, device="cpu", alone_threads=2)
    for _ in range(3):
        rows = [one.get("one").encode(["a text"]) for one in (encoders, wide)]
        assert rows[0].tobytes() == rows[1].tobytes()
    [usual], [twice] = encoders.loaded(), wide.loaded()
    assert twice.counted_bytes == 2 * usual.counted_bytes
    wide.close()


def test_canary_of_a_busy_engine_is_given_up_in_time(
    encoders: Encoders, scheduler: Scheduler
) -> None:
    encoders.get("one")
    encoders.check_canary("one", timeout_s=5)
    backend = SumBackend()
    backend.gate.clear()
    blocker = scheduler.submit(backend, [text(3)], dimensions=DIMENSIONS, lane="small")
    started = time.monotonic()
    with pytest.raises(OverloadedError, match=r"within 0\.1 s"):
        encoders.check_canary("one", timeout_s=0.1)
    assert time.monotonic() - started < 2
    backend.gate.set()
    blocker.result(5)
