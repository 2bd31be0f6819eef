"""The way to a GPU, walked on the CPU as far as it leads: shapes, bindings, options, errors."""

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from embedserve.engine.backend import BACKENDS, BackendOptions
from embedserve.engine.buckets import next_bucket
from embedserve.engine.onnxruntime_backend import (
    SMALLEST_GRAPH,
    OnnxRuntimeBackend,
    why_no_device,
)
from embedserve.engine.providers import AUTO, DEVICES, memory_hint, provider_options
from embedserve.engine.scheduler import BatchReport, Scheduler
from embedserve.errors import ModelError
from embedserve.models.recipes import RECIPES
from embedserve.services.machine import Machine, resolve_device, unfit
from embedserve.types import Arithmetic, BatchTokens, TokenIds, Vectors
from tests.tiny_graph import DIMENSIONS, MAX_TOKENS, PAD, random_text, write_tiny_graph

OPTIONS = BackendOptions(
    "cuda", threads=2, arithmetic="f32", pad_token_id=PAD, max_tokens=MAX_TOKENS
)
CPU = ("CPUExecutionProvider",)
# What a GPU would be told, told to the CPU: same shapes, same bindings, other silicon.
ON_CPU = {
    name: replace(DEVICES[name], providers=CPU, memory="cpu", run_tokens=512)
    for name in ("cuda", "tensorrt")
}
needs_no_gpu = pytest.mark.skipif(
    "CUDAExecutionProvider" in ort.get_available_providers(), reason="onnxruntime has CUDA here"
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_graph(tmp_path_factory.mktemp("gpu") / "tiny.onnx")


@pytest.fixture(scope="module")
def plain(graph: Path) -> Iterator[OnnxRuntimeBackend]:
    backend = OnnxRuntimeBackend.load(graph, replace(OPTIONS, device="cpu"))
    yield backend
    backend.close()


@pytest.fixture(scope="module", params=sorted(ON_CPU))
def padded(request: pytest.FixtureRequest, graph: Path) -> Iterator[OnnxRuntimeBackend]:
    backend = OnnxRuntimeBackend.load_on(ON_CPU[request.param], graph, OPTIONS)
    yield backend
    backend.close()


def in_its_bucket(backend: OnnxRuntimeBackend, ids: TokenIds) -> list[TokenIds]:
    """Return random texts that may come together with this one, up to the longest."""
    bucket = backend.bucket(len(ids))
    same = [n for n in range(1, MAX_TOKENS + 1) if backend.bucket(n) == bucket]
    return [random_text(length, seed) for seed, length in enumerate(same * 3)]


@pytest.mark.parametrize("name", sorted(ON_CPU))
def test_bound_run_gives_the_bits_of_a_plain_one(name: str, graph: Path) -> None:
    """Texts as long as their bucket, as many as a run has: then both get the same arrays."""
    session = ort.InferenceSession(str(graph), providers=list(CPU))
    backend = OnnxRuntimeBackend.load_on(ON_CPU[name], graph, OPTIONS)
    for length in (8, 64, 80, MAX_TOKENS, 8):
        count = ON_CPU[name].rows(length, MAX_TOKENS)
        texts = [random_text(length, seed) for seed in range(count)]
        feeds = {"input_ids": np.stack(texts), "attention_mask": np.ones((count, length), int)}
        [true] = session.run(None, feeds)
        assert backend.run(texts).tobytes() == true.tobytes()
    backend.close()


def test_padding_does_not_count(plain: OnnxRuntimeBackend, padded: OnnxRuntimeBackend) -> None:
    for length in range(1, MAX_TOKENS + 1):
        ids = random_text(length, length)
        # Sums of other lengths are added up in another order, no more.
        np.testing.assert_allclose(padded.run([ids]), plain.run([ids]), atol=1e-5)


def test_vector_is_the_same_to_the_last_bit_in_any_company(padded: OnnxRuntimeBackend) -> None:
    for length in (1, 8, 9, 50, 65, 97, MAX_TOKENS):
        ids = random_text(length, 1)
        [alone] = padded.run([ids])
        others = in_its_bucket(padded, ids)
        for place in (0, 3, len(others)):
            rows = padded.run([*others[:place], ids, *others[place:]])
            assert rows.shape == (len(others) + 1, DIMENSIONS)
            assert rows[place].tobytes() == alone.tobytes(), (length, place)


def test_every_run_of_a_bucket_has_one_shape() -> None:
    """Another shape may mean another kernel on a GPU, and so other bits."""
    cuda, tensorrt = DEVICES["cuda"], DEVICES["tensorrt"]
    assert [cuda.rows(bucket, 8192) for bucket in (8, 64, 512, 4096, 8192)] == [512, 64, 8, 1, 1]
    assert {tensorrt.rows(bucket, 512) for bucket in (8, 64, 512)} == {32}
    assert tensorrt.rows(8192, 8192) == 2
    assert all(not device.is_padded for name, device in DEVICES.items() if name == "cpu")


def test_runs_are_filled_from_the_queue(padded: OnnxRuntimeBackend) -> None:
    """Of one bucket, whatever else waits: a run with spare rows takes as long as a full one."""
    reports: list[BatchReport] = []
    rows = padded.fixed_texts(64)
    assert rows
    engine = Scheduler(
        workers=1, batch_tokens=BatchTokens(), queue_tokens=100_000, report=reports.append
    )
    texts = [random_text(60 + n % 5 if n % 2 else 20, n) for n in range(4 * rows + 2)]
    vectors = engine.submit(padded, texts, dimensions=DIMENSIONS, lane="bulk").result(10)
    engine.close()
    assert vectors.tobytes() == np.concatenate([padded.run([ids]) for ids in texts]).tobytes()
    most = padded.fixed_texts(padded.bucket(20))
    assert most
    short = [min(most, 2 * rows + 1 - first) for first in range(0, 2 * rows + 1, most)]
    assert sorted(report.texts for report in reports) == sorted([rows, rows, 1, *short])


def test_callers_at_once_get_their_own_rows_and_keep_them(padded: OnnxRuntimeBackend) -> None:
    texts = [random_text(length, seed) for length in (5, 30, 90) for seed in range(8)]
    true = [padded.run([ids]) for ids in texts]
    barrier = threading.Barrier(4)

    def call(number: int) -> list[Vectors]:
        barrier.wait(10)
        order = np.random.default_rng(number).permutation(len(texts))
        rows = {int(place): padded.run([texts[place]]) for place in order}
        return [rows[place] for place in range(len(texts))]

    with ThreadPoolExecutor(4) as callers:
        for rows in callers.map(call, range(4)):
            assert np.concatenate(rows).tobytes() == np.concatenate(true).tobytes()


def test_failed_run_is_an_error_and_the_next_one_works(padded: OnnxRuntimeBackend) -> None:
    true = padded.run([random_text(9)])
    with pytest.raises(ModelError, match="different buckets came together"):
        padded.run([random_text(9), random_text(50)])
    with pytest.raises(ModelError, match="engine failed on 1 texts"):
        padded.run([np.full(9, 10**9)])
    assert np.array_equal(padded.run([random_text(9)]), true)


def test_text_beyond_the_model_is_refused(padded: OnnxRuntimeBackend) -> None:
    with pytest.raises(ModelError, match=f"too long for a model of {MAX_TOKENS}"):
        padded.run([random_text(MAX_TOKENS + 1)])


def test_closed_model_runs_no_more(graph: Path) -> None:
    backend = OnnxRuntimeBackend.load_on(ON_CPU["cuda"], graph, OPTIONS)
    backend.run([random_text(5)])
    backend.close()
    with pytest.raises(ModelError, match="closed while it was in use"):
        backend.run([random_text(5)])


@needs_no_gpu
@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_named_device_that_is_not_there_is_an_error_and_no_step_back(
    name: str, graph: Path
) -> None:
    options = replace(OPTIONS, device=name)
    with pytest.raises(ModelError, match=f"`{name}` is not available.*EMBEDSERVE_DEVICE=cpu"):
        BACKENDS.load("onnxruntime").load(graph, options)
    assert f"`{name}` is not available" in why_no_device(name)
    assert resolve_device(name) == name


def test_arithmetic_that_a_device_does_not_have_is_refused(graph: Path) -> None:
    cases: list[tuple[str, Arithmetic]]
    cases = [("cpu", "f16"), ("cuda", "f16"), ("cuda", "bf16"), ("tensorrt", "bf16")]
    for name, arithmetic in cases:
        options = replace(OPTIONS, device=name, arithmetic=arithmetic)
        with pytest.raises(ModelError, match=f"cannot turn float32 into `{arithmetic}`"):
            OnnxRuntimeBackend.load(graph, options)


@pytest.mark.parametrize(
    "words",
    [
        "CUDA failure 2: out of memory ; GPU=0",
        "Failed to allocate memory for requested buffer of size 42",
        "Available memory of 0 is smaller than requested bytes of 1024",
        "CUDA error cudaErrorMemoryAllocation",
    ],
)
def test_gpu_without_memory_says_what_to_set(words: str) -> None:
    assert "EMBEDSERVE_THREADS=1" in memory_hint(DEVICES["cuda"], words)
    assert memory_hint(DEVICES["cpu"], words) == "", "no GPU is meant"
    assert memory_hint(DEVICES["cuda"], "Invalid rank for input: input_ids") == ""


def test_float32_stays_float32_on_a_gpu(tmp_path: Path) -> None:
    """The fp32 recipe is the reference of all others; TF32 would round its inputs to ten bits."""
    [(name, options)] = provider_options(DEVICES["cuda"], tmp_path / "model.onnx", OPTIONS)
    assert name == "CUDAExecutionProvider"
    assert options["use_tf32"] == "0"
    assert options["arena_extend_strategy"] == "kSameAsRequested"


@pytest.mark.parametrize("longest", [4, 100, 512, 8192])
def test_tensorrt_is_told_every_shape_that_it_will_meet(longest: int, tmp_path: Path) -> None:
    device = DEVICES["tensorrt"]
    asked = replace(OPTIONS, device="tensorrt", max_tokens=longest)
    (_, options), (fallback, _) = provider_options(device, tmp_path / "model.onnx", asked)
    assert fallback == "CUDAExecutionProvider"
    shapes = {}
    for end in ("min", "opt", "max"):
        ids, mask = options[f"trt_profile_{end}_shapes"].split(",")
        assert ids.replace("input_ids:", "attention_mask:") == mask
        rows, _, length = ids.removeprefix("input_ids:").partition("x")
        shapes[end] = (int(rows), int(length))
    buckets = {next_bucket(length, longest) for length in range(1, longest + 1)}
    assert {device.rows(bucket, longest) for bucket in buckets} == {shapes["min"][0]}
    assert {rows for rows, _ in shapes.values()} == {shapes["min"][0]}
    assert (shapes["min"][1], shapes["max"][1]) == (min(buckets), max(buckets))
    assert shapes["opt"][1] in buckets


def test_tensorrt_keeps_its_engines_beside_their_own_graph(tmp_path: Path) -> None:
    """Its cache does not look at weights: two models in one folder could swap their engines."""
    folders = set()
    for model in ("a", "b"):
        path = tmp_path / model / "model.onnx"
        _, options = provider_options(DEVICES["tensorrt"], path, OPTIONS)[0]
        assert Path(options["trt_engine_cache_path"]).parent == path.parent
        folders.add(options["trt_engine_cache_path"])
    assert len(folders) == 2


def test_tensorrt_computes_in_fp16_only_when_that_is_asked_for(tmp_path: Path) -> None:
    enabled = {}
    for arithmetic in DEVICES["tensorrt"].arithmetics:
        asked = replace(OPTIONS, arithmetic=arithmetic)
        _, options = provider_options(DEVICES["tensorrt"], tmp_path / "model.onnx", asked)[0]
        enabled[arithmetic] = options["trt_fp16_enable"]
    assert enabled == {"f32": "0", "f16": "1"}


def test_smallest_graph_is_a_graph() -> None:
    model = onnx.load_from_string(SMALLEST_GRAPH)
    onnx.checker.check_model(model)
    assert [node.op_type for node in model.graph.node] == ["Identity"]


def test_cpu_works_and_an_unknown_device_is_named() -> None:
    assert why_no_device("cpu") == ""
    assert "`abacus` is unknown" in why_no_device("abacus")


@needs_no_gpu
def test_auto_is_the_cpu_where_no_gpu_can_be_used(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert resolve_device(AUTO) == "cpu"
    assert "not `cuda`. Device `cuda` is not available" in caplog.text
    assert "models run on `cpu`" in caplog.text


def test_auto_is_cuda_where_it_works_and_never_tensorrt(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []

    def works(name: str) -> str:
        asked.append(name)
        return ""

    with caplog.at_level(logging.INFO):
        assert resolve_device(AUTO, works) == "cuda"
    assert asked == ["cuda"]
    assert "models run on `cuda`" in caplog.text


def test_named_device_is_taken_at_its_word() -> None:
    for name in DEVICES:
        assert resolve_device(name, lambda name: "broken") == name


def test_recipes_are_for_the_devices_that_they_name() -> None:
    assert unfit("cuda", "fp16", "onnxruntime") == ""
    assert unfit("cuda", "fp32", "onnxruntime") == ""
    assert "`int8` is not for device `cuda`" in unfit("cuda", "int8", "onnxruntime")
    assert "`fp16` is not for device `cpu`" in unfit("cpu", "fp16", "onnxruntime")
    assert unfit("cuda", "fp32", "openvino") == "this engine runs on CPUs only"
    for recipe in RECIPES:
        assert Machine("cuda", 1).why_not(recipe, "onnxruntime") == unfit(
            "cuda", recipe, "onnxruntime"
        )
