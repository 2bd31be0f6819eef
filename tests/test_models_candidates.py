"""The search for the fastest faithful recipe: what is tried, refused, chosen, and cleaned up."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from embedserve.engine.backend import EngineFacts, describe
from embedserve.engine.scheduler import Scheduler
from embedserve.errors import EmbedserveError, ModelError
from embedserve.models import installed
from embedserve.models.recipes import FULL_RANGE, RECIPES, SAFE_RANGE
from embedserve.services.candidates import CandidateSearch, Chosen, Task
from embedserve.services.encoders import Encoders
from embedserve.services.model_library import ModelLibrary
from embedserve.services.models import Machine, PullRequest, pull_model
from embedserve.services.workshop import Workshop
from tests.tiny_models import Exported

WAIT_S = 30
# Its vectors keep their neighbours well enough under int8, for weights at random.
FAITHFUL = "bert-mean"

MakeTask = Callable[..., Task]


@pytest.fixture
def workshop() -> Iterator[Workshop]:
    workshop = Workshop()
    yield workshop
    workshop.close()


@pytest.fixture
def make_task(exported: dict[str, Exported], tmp_path: Path) -> MakeTask:
    """A task on a copy of a tiny model; recipes and engines are what a test is about."""

    def make(name: str = FAITHFUL, **changes: object) -> Task:
        model = exported[name]
        folder = tmp_path / "task"
        folder.mkdir()
        for file in ("reference.onnx", "tokenizer.json"):
            shutil.copyfile(model.folder / file, folder / file)
        given: dict[str, object] = {
            "recipes": (("fp32",),),
            "engines": ("onnxruntime",),
            "round_seconds": 0.01,
            **changes,
        }
        return Task(
            folder=folder,
            kind=model.facts.kind,
            max_tokens=model.facts.max_tokens,
            dimensions=model.facts.dimensions,
            pad_token_id=model.facts.pad_token_id,
            device="cpu",
            threads=1,
            **given,  # type: ignore[arg-type]
        )

    return make


def search(task: Task, workshop: Workshop) -> Chosen:
    return CandidateSearch(task, workshop, lambda stage: None).run()


def children() -> set[int]:
    """Return the processes that this one has started and not yet seen the end of."""
    return {
        int(child)
        for thread in Path("/proc/self/task").iterdir()
        for child in (thread / "children").read_text("ascii").split()
    }


def cpu_with(folder: Path, flags: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(f"processor : 0\nflags : fpu {flags}\n", "ascii")
    return path


def test_refused_candidates_are_told_with_their_figure_and_a_later_group_is_tried(
    make_task: MakeTask, workshop: Workshop
) -> None:
    chosen = search(make_task(recipes=(("int4",), ("fp32",))), workshop)
    assert (chosen.recipe, chosen.runtime.engine) == ("fp32", "onnxruntime")
    verdicts = {one.recipe: one.verdict for one in chosen.candidates}
    assert verdicts["fp32"] == "installed"
    assert verdicts["int4"].startswith("refused: ")
    assert "top-10 overlap against fp32 is 0." in verdicts["int4"]
    assert chosen.performance.is_batch_invariant
    assert chosen.fidelity.cosine_min >= 0.99999


def test_nothing_faithful_says_which_figure_failed_and_what_to_do(
    make_task: MakeTask, workshop: Workshop
) -> None:
    with pytest.raises(ModelError) as raised:
        search(make_task(recipes=(("int4",),)), workshop)
    message = str(raised.value)
    assert "`int4` on onnxruntime (4-bit weights in blocks of 32) refused: " in message
    assert "top-10 overlap against fp32 is 0." in message
    assert "at least 0.9 is required" in message
    assert "Pull it without `--recipe` and `--engine`" in message
    assert "`--accept-loss`" in message


def test_loss_that_is_accepted_is_installed_with_its_true_figures(
    make_task: MakeTask, workshop: Workshop
) -> None:
    chosen = search(make_task(recipes=(("int4",),), accepts_loss=True), workshop)
    assert chosen.recipe == "int4"
    assert chosen.fidelity.top10_overlap < RECIPES["int4"].gate.top10_overlap


def test_what_depends_on_the_batch_is_refused_unless_its_recipe_says_so(
    make_task: MakeTask, workshop: Workshop
) -> None:
    # Its last layer has fewer features than a group, which the engine then computes in float, in
    # another order for one row than for several.
    if not describe("openvino").is_available:
        pytest.skip(f"ENGINE NOT CHECKED: {describe('openvino').why_not}")
    with pytest.raises(ModelError, match=r"inputs dynamic by 64 .*vectors depend on the batch"):
        search(make_task("bert-dense", recipes=(("int8",),), engines=("openvino",)), workshop)


def test_int8_dynamic_is_installed_and_says_that_it_depends_on_the_batch(
    make_task: MakeTask, workshop: Workshop
) -> None:
    chosen = search(make_task(recipes=(("int8-dynamic",),)), workshop)
    assert chosen.recipe == "int8-dynamic"
    assert not chosen.performance.is_batch_invariant
    assert "depend on the batch" in RECIPES["int8-dynamic"].note


def test_an_engine_that_is_absent_is_told_and_another_serves(
    make_task: MakeTask, workshop: Workshop
) -> None:
    def facts(name: str) -> EngineFacts:
        if name == "openvino":
            return EngineFacts(name, "", is_available=False, why_not="openvino is not installed.")
        return describe(name)

    task = make_task(engines=("onnxruntime", "openvino"), engine_facts=facts)
    chosen = search(task, workshop)
    assert chosen.runtime.engine == "onnxruntime"
    [absent] = [one for one in chosen.candidates if one.engine == "openvino"]
    assert absent.verdict == "not here: openvino is not installed."
    assert absent.tokens_per_s_mixed is None


def test_bf16_needs_a_cpu_that_has_it(
    make_task: MakeTask, workshop: Workshop, tmp_path: Path
) -> None:
    plain = cpu_with(tmp_path, "avx2 avx512f avx512_vnni")
    task = make_task(recipes=(("bf16",),), engines=("openvino",), cpu_info=plain)
    with pytest.raises(ModelError, match=r"`bf16` on openvino .* not here: this CPU has no bf16"):
        search(task, workshop)


def test_weights_have_seven_bits_where_sums_of_sixteen_would_saturate(
    make_task: MakeTask, workshop: Workshop, tmp_path: Path
) -> None:
    plain = cpu_with(tmp_path, "avx2")
    task = make_task(recipes=(("int8",),), accepts_loss=True, cpu_info=plain)
    chosen = search(task, workshop)
    assert chosen.method.endswith("; 7-bit weights, as this CPU has no VNNI")
    assert _greatest_code(chosen.folder / "model.onnx") == SAFE_RANGE


def test_weights_have_eight_bits_where_sums_have_thirty_two(
    make_task: MakeTask, workshop: Workshop, tmp_path: Path
) -> None:
    task = make_task(
        recipes=(("int8",),), accepts_loss=True, cpu_info=cpu_with(tmp_path, "avx512_vnni")
    )
    chosen = search(task, workshop)
    assert chosen.method == "int8, one scale for each token row, smoothed"
    assert _greatest_code(chosen.folder / "model.onnx") == FULL_RANGE


def _greatest_code(path: Path) -> int:
    tensors = [onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer]
    return max(int(np.abs(t.astype(int)).max()) for t in tensors if t.dtype == np.int8)


def test_static_int8_runs_in_float32_where_there_is_no_bf16(
    make_task: MakeTask, workshop: Workshop, tmp_path: Path
) -> None:
    if not describe("openvino").is_available:
        pytest.skip(f"ENGINE NOT CHECKED: {describe('openvino').why_not}")
    task = make_task(
        recipes=(("int8",),),
        engines=("openvino",),
        accepts_loss=True,
        cpu_info=cpu_with(tmp_path, "avx512f avx512_vnni"),
    )
    assert search(task, workshop).runtime.arithmetic == "f32"


def test_a_killed_workbench_is_an_error_that_says_so(
    make_task: MakeTask, workshop: Workshop
) -> None:
    before = children()

    def kill(stage: str) -> None:
        if stage.startswith("building"):
            # The next question finds it gone.
            threading.Timer(0.2, kill_all).start()

    def kill_all() -> None:
        for child in children() - before:
            os.kill(child, signal.SIGKILL)

    with pytest.raises(ModelError, match=r"was killed. If nobody did that, memory ran out"):
        CandidateSearch(make_task(), workshop, kill).run()
    assert children() == before


def test_a_killed_workbench_leaves_nothing_behind_and_the_next_pull_works(
    exported: dict[str, Exported], workshop: Workshop, tmp_path: Path
) -> None:
    request = PullRequest(
        "tiny", exported["bert-ready"].folder / "checkpoint", recipe="fp32", engine="onnxruntime"
    )
    before, has_killed = children(), threading.Event()

    def progress(stage: str, done: int | None, total: int | None) -> None:
        if stage == "measuring speed" and not has_killed.is_set():
            has_killed.set()
            for child in children() - before:
                os.kill(child, signal.SIGKILL)

    def pull() -> None:
        pull_model(
            request,
            models_folder=tmp_path,
            workshop=workshop,
            machine=Machine("cpu", 1),
            progress=progress,
        )

    with pytest.raises(ModelError, match=r"The process for `speed` was killed"):
        pull()
    assert installed.list_installed(tmp_path) == []
    assert list((tmp_path / ".staging").iterdir()) == []
    pull()
    assert installed.resolve(tmp_path, "tiny").manifest.recipe == "fp32"


def test_a_graph_that_cannot_be_built_says_why(make_task: MakeTask, workshop: Workshop) -> None:
    task = make_task(recipes=(("int8",),))
    (task.folder / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(ModelError, match=r"okenizer"):
        search(task, workshop)


def test_closing_the_library_ends_measuring_too(
    exported: dict[str, Exported], tmp_path: Path
) -> None:
    scheduler = Scheduler(workers=1, micro_batch_tokens=64, queue_tokens=10_000)
    encoders = Encoders(tmp_path, scheduler, device="cpu")
    library = ModelLibrary(tmp_path, encoders, Machine("cpu", 1))
    is_measuring, before = threading.Event(), children()
    pull = library.start_pull(
        PullRequest("tiny", exported["bert-ready"].folder / "checkpoint", recipe="fp32"),
        lambda stage, done, total: is_measuring.set() if stage.startswith("measuring s") else None,
    )
    assert is_measuring.wait(WAIT_S)
    started = time.monotonic()
    library.close()
    # Measuring alone would take seconds.
    assert time.monotonic() - started < 2
    assert isinstance(pull.exception(WAIT_S), EmbedserveError)
    assert children() == before
    assert list((tmp_path / ".staging").iterdir()) == []
    scheduler.close()


def test_a_closed_workshop_lends_nothing(make_task: MakeTask) -> None:
    workshop = Workshop()
    workshop.close()
    with pytest.raises(ModelError, match="was stopped"):
        search(make_task(), workshop)
