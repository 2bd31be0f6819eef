"""Damaged and half-finished models: refused with a message, never served, repaired by a pull."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from embedserve.engine.backend import EngineFacts, describe
from embedserve.engine.scheduler import Scheduler
from embedserve.errors import ModelError, ModelNotFoundError
from embedserve.models import installed, manifest
from embedserve.models.names import parse_name
from embedserve.services.encoders import Encoders
from embedserve.services.models import Machine, PullRequest, pull_model
from embedserve.services.workshop import Workshop
from embedserve.types import BatchTokens
from tests.live import environment
from tests.model_damage import (
    cut_manifest,
    cut_tokenizer,
    delete_graph,
    flip_byte,
    list_foreign_file,
    rewrite_manifest,
)
from tests.tiny_models import Exported

T = TypeVar("T")

WAIT_S = 60
ROOT = Path(__file__).parent.parent
MACHINE = Machine("cpu", 1, round_seconds=0.01)


@pytest.fixture(scope="session")
def request_of_tiny(exported: dict[str, Exported]) -> PullRequest:
    """A pull of seconds: a checkpoint with a ready graph, and one recipe to try."""
    checkpoint = exported["bert-ready"].folder / "checkpoint"
    return PullRequest("tiny", checkpoint, recipe="fp32", engine="onnxruntime")


@pytest.fixture(scope="session")
def intact(request_of_tiny: PullRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with `tiny`; tests work on copies."""
    folder, workshop = tmp_path_factory.mktemp("intact"), Workshop()
    pull(request_of_tiny, folder, workshop)
    workshop.close()
    return folder


@pytest.fixture
def models(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "models"))


@pytest.fixture
def encoders(models: Path) -> Iterator[Encoders]:
    scheduler = Scheduler(workers=1, batch_tokens=BatchTokens(64, 64), queue_tokens=10_000)
    yield Encoders(models, scheduler, device="cpu")
    scheduler.close()


def pull(
    request: PullRequest, models_folder: Path, workshop: Workshop, machine: Machine = MACHINE
) -> None:
    pull_model(request, models_folder=models_folder, workshop=workshop, machine=machine)


DAMAGES = {
    "a corrupted byte in the graph": (flip_byte, r"model\.onnx` has sha256 \w+ instead of"),
    "a truncated tokenizer": (cut_tokenizer, r"tokenizer\.json` has \d+ bytes instead of \d+"),
    "a missing file": (delete_graph, r"model\.onnx` cannot be read: No such file"),
    "a manifest from the future": (rewrite_manifest(format_version=99), r"has format 99, this"),
    "a manifest that names another folder": (list_foreign_file, r"lists other than a model's"),
    "a truncated manifest": (cut_manifest, "is not a manifest"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damaged_model_is_not_served_and_is_pulled_again(
    what: str, models: Path, encoders: Encoders, request_of_tiny: PullRequest
) -> None:
    damage, message = DAMAGES[what]
    folder = installed.folder_of(models, parse_name("tiny"))
    damage(folder)
    with pytest.raises(ModelError, match=rf"`tiny:latest` cannot be used: .*{message}") as raised:
        encoders.get("tiny")
    assert "Repair it with `embedserve pull tiny:latest`" in str(raised.value)
    assert not encoders.is_loaded("tiny")
    # Were it taken for intact, the pull would make nothing and succeed.
    closed = Workshop()
    closed.close()
    with pytest.raises(ModelError, match="was stopped"):
        pull(request_of_tiny, models, closed)


def test_next_pull_repairs_a_model_to_the_same_artefact(
    models: Path, encoders: Encoders, request_of_tiny: PullRequest, workshop: Workshop
) -> None:
    before = installed.resolve(models, "tiny")
    delete_graph(before.folder)
    cut_tokenizer(before.folder)
    list_foreign_file(before.folder)
    pull(request_of_tiny, models, workshop)
    after = installed.resolve(models, "tiny")
    manifest.verify(after.folder, after.manifest)
    # The same checkpoint gives the same bytes.
    assert after.manifest.artefact == before.manifest.artefact
    assert after.manifest.canary == before.manifest.canary
    assert encoders.get("tiny").encode(["a text"]).shape == (1, before.manifest.dimensions)
    assert (before.folder.parent / "x").read_bytes() == b"somebody's own"
    assert list((models / ".staging").iterdir()) == []


def test_plain_pull_repairs_a_damaged_model_in_the_form_it_had(
    models: Path, request_of_tiny: PullRequest, workshop: Workshop
) -> None:
    # A plain pull of a new model would try every recipe and take the fastest.
    before = installed.resolve(models, "tiny")
    flip_byte(before.folder)
    pull(replace(request_of_tiny, recipe=None, engine=None), models, workshop)
    after = installed.resolve(models, "tiny").manifest
    assert after.artefact == before.manifest.artefact
    assert [one.recipe for one in after.candidates] == ["fp32"]


def test_pull_of_another_form_says_what_it_replaces(
    models: Path, request_of_tiny: PullRequest, workshop: Workshop
) -> None:
    told: list[str] = []
    pull_model(
        replace(request_of_tiny, recipe="int4", accepts_loss=True),
        models_folder=models,
        workshop=workshop,
        machine=MACHINE,
        progress=lambda stage, done, total: told.append(stage),
    )
    [line] = [stage for stage in told if stage.startswith("replacing")]
    assert "fp32 on onnxruntime" in line
    assert "indexes" in line


def without_openvino(name: str) -> EngineFacts:
    if name == "openvino":
        return EngineFacts(name, "", is_available=False, why_not="openvino is not installed.")
    return describe(name)


@pytest.mark.parametrize(
    ("changes", "machine"),
    [
        ({"engine": "onnxruntime", "arithmetic": "bf16"}, "without bf16"),
        ({"engine": "openvino", "arithmetic": "f32"}, "without openvino"),
        ({"engine": "openvino", "arithmetic": "f32"}, "with a GPU"),
        ({"engine": "abacus", "arithmetic": "f32"}, "as it is"),
    ],
)
def test_plain_pull_repairs_a_model_that_cannot_run_here(
    changes: dict[str, str], machine: str, models: Path, request_of_tiny: PullRequest
) -> None:
    old_cpu = models / "cpuinfo"
    old_cpu.write_text("processor : 0\nflags : fpu avx2\n", "ascii")
    new_cpu = models / "new-cpuinfo"
    new_cpu.write_text("processor : 0\nflags : fpu avx512_bf16\n", "ascii")
    here = {
        "without bf16": replace(MACHINE, cpu_info=old_cpu),
        "without openvino": replace(MACHINE, engine_facts=without_openvino),
        "with a GPU": replace(MACHINE, device="cuda"),
        "as it is": MACHINE,
    }[machine]
    model = installed.resolve(models, "tiny")
    runtime = replace(model.manifest.runtime, **changes)  # type: ignore[arg-type]
    manifest.write(model.folder, replace(model.manifest, runtime=runtime))
    plain = replace(request_of_tiny, engine=None, recipe=None)
    closed = Workshop()
    closed.close()
    # Were it taken for intact, the pull would make nothing and succeed.
    with pytest.raises(ModelError, match="was stopped"):
        pull(plain, models, closed, here)
    if machine == "without bf16":
        pull(plain, models, closed, replace(MACHINE, cpu_info=new_cpu))


def test_another_canary_is_refused(models: Path, encoders: Encoders) -> None:
    model = installed.resolve(models, "tiny")
    turned = np.roll(np.array(model.manifest.canary.vector), 1).tolist()
    rewrite_manifest(canary={"text": model.manifest.canary.text, "vector": turned})(model.folder)
    with pytest.raises(ModelError, match=r"gives another vector than when .* It is not served"):
        encoders.get("tiny")
    assert not encoders.is_loaded("tiny")


# A pull in a process that can be killed; it says its stages.
_PULL = """
import sys
from pathlib import Path
from embedserve.services.models import Machine, PullRequest, pull_model
from embedserve.services.workshop import Workshop

pull_model(
    PullRequest("tiny", Path(sys.argv[1]), recipe="fp32", engine="onnxruntime"),
    models_folder=Path(sys.argv[2]),
    workshop=Workshop(),
    machine=Machine("cpu", 1, round_seconds=0.01),
    progress=lambda stage, done, total: print(stage, flush=True),
)
"""


@pytest.mark.parametrize("stage", ["exporting", "measuring fp32", "measuring speed"])
def test_pull_that_was_killed_leaves_no_model_and_no_process(
    stage: str, request_of_tiny: PullRequest, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", _PULL, str(request_of_tiny.source), str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert any(line.strip() == stage for line in process.stdout)
        children = wait_for(lambda: children_of(process.pid))
        process.send_signal(signal.SIGKILL)
        process.wait(WAIT_S)
    assert installed.list_installed(tmp_path) == []
    with pytest.raises(ModelNotFoundError):
        installed.resolve(tmp_path, "tiny")
    assert wait_for(lambda: not any(is_running(child) for child in children))


def test_pull_after_one_that_was_killed_cleans_up(
    request_of_tiny: PullRequest, workshop: Workshop, tmp_path: Path
) -> None:
    # Never left: who entered it is dead.
    staging = installed.staging(tmp_path, parse_name("tiny"))
    half = staging.__enter__() / "half.onnx"
    half.write_bytes(b"half a graph")
    pull(request_of_tiny, tmp_path, workshop)
    assert installed.resolve(tmp_path, "tiny").manifest.recipe == "fp32"
    assert not half.exists()
    assert list((tmp_path / ".staging").iterdir()) == []


def test_workbench_ends_when_nobody_can_ask_any_more() -> None:
    command = [sys.executable, "-m", "embedserve.services.workbench"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        _, stderr = process.communicate(timeout=WAIT_S)
    assert (process.returncode, stderr) == (0, b"")


def children_of(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(c) for t in tasks for c in (t / "children").read_text("ascii").split()]
    except FileNotFoundError:
        return []


def is_running(pid: int) -> bool:
    """Tell whether a process is there and not just waiting for its end to be noticed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(find: Callable[[], T]) -> T:
    deadline = time.monotonic() + WAIT_S
    while not (found := find()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found
