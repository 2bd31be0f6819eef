"""The search for the fastest faithful recipe: what is tried, refused, chosen, and cleaned up."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from embedserve.engine.backend import EngineFacts, describe
from embedserve.errors import ModelError
from embedserve.models.fidelity import reference_pairs
from embedserve.models.recipes import FULL_RANGE, RECIPES, SAFE_RANGE
from embedserve.services.workshop import Workshop
from tests.candidate_tasks import MakeTask, search


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


def test_reranker_is_measured_by_its_scores(make_task: MakeTask, workshop: Workshop) -> None:
    task = make_task("bert-reranker", recipes=(("int8",),), accepts_loss=True)
    chosen = search(task, workshop)
    queries, _ = reference_pairs()
    assert (chosen.recipe, chosen.fidelity.texts) == ("int8", len(queries))
    assert 0.9 < chosen.fidelity.cosine_mean < 1
    assert chosen.fidelity.top10_overlap > 0.7
    assert chosen.canary.shape == (1,)
    assert chosen.performance.is_batch_invariant


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
    [only] = chosen.candidates
    assert only.verdict.startswith("installed, below its gate: ")
    assert "top-10 overlap against fp32 is 0." in only.verdict


def test_loss_is_not_taken_where_something_passes(make_task: MakeTask, workshop: Workshop) -> None:
    chosen = search(make_task(recipes=(("int4", "fp32"),), accepts_loss=True), workshop)
    assert chosen.recipe == "fp32"
    verdicts = {one.recipe: one.verdict for one in chosen.candidates}
    assert verdicts["fp32"] == "installed"
    assert verdicts["int4"].startswith("refused: ")


def test_of_the_lossy_ways_of_a_recipe_the_most_faithful_is_taken(
    make_task: MakeTask, workshop: Workshop
) -> None:
    if not describe("openvino").is_available:
        pytest.skip(f"ENGINE NOT CHECKED: {describe('openvino').why_not}")
    chosen = search(
        make_task("bert-dense", recipes=(("int8",),), engines=("openvino",), accepts_loss=True),
        workshop,
    )
    means = [
        float(re.findall(r"mean cosine against fp32 is (0\.\d+)", one.verdict)[0])
        for one in chosen.candidates
        if "mean cosine" in one.verdict and one.verdict.startswith("refused: ")
    ]
    assert max(means, default=0) <= chosen.fidelity.cosine_mean + 1e-5
    assert sum(one.verdict.startswith("installed, below") for one in chosen.candidates) == 1
    assert len(chosen.candidates) == sum(w.engine == "openvino" for w in RECIPES["int8"].ways)


def test_what_cannot_be_built_is_refused_and_the_next_is_tried(
    make_task: MakeTask, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stands before the real package, as if that were not installed.
    (tmp_path / "optimum").mkdir()
    (tmp_path / "optimum" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    chosen = search(make_task(recipes=(("int8-dynamic",), ("fp32",))), workshop)
    assert chosen.recipe == "fp32"
    [refused] = [one for one in chosen.candidates if one.recipe == "int8-dynamic"]
    assert refused.verdict == (
        "refused: Recipe `int8-dynamic` needs the package `optimum.onnxruntime`, which is not "
        "installed. Install it with `pip install 'embedserve[export]'`."
    )


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


def test_a_graph_that_cannot_be_built_says_why(make_task: MakeTask, workshop: Workshop) -> None:
    task = make_task(recipes=(("int8",),))
    (task.folder / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(ModelError, match=r"okenizer"):
        search(task, workshop)
