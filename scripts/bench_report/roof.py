"""The machine's own limit for 8-bit arithmetic: a graph of nothing but large 8-bit products.

It has an encoder's inputs and output, so the same engine runs it in the same way; weights and
activations are fixed-scale int8 as in recipe `int8`, and between products there is only the
rounding to 8 bits that the engine fuses into them.
"""

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from onnx import ModelProto, TensorProto, helper

from embedserve.engine.backend import BACKENDS, Backend, BackendOptions, describe
from embedserve.engine.cores import available_cores
from embedserve.models.graph import GraphEditor, save
from embedserve.types import TokenIds

ENGINE = "openvino"
WIDTHS = (512, 1024, 2048)
LAYERS = 8
_WORDS = 64
_TEXTS, _TOKENS = 8, 128
_REACH = 255


def int8_operations_per_s(seconds: float) -> float | None:
    """Return multiplications and additions per second on all cores, the best width's.

    None where the engine is not there. Runs in a process of its own.
    """
    if not describe(ENGINE).is_available:
        return None
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        speeds = [process.submit(_measure, width, seconds).result() for width in WIDTHS]
    return max(speeds)


def products(width: int, layers: int = LAYERS) -> ModelProto:
    """Return the graph: look words up, multiply `layers` times, average."""
    graph = helper.make_graph(
        [],
        "products",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", width])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    editor, drawn = GraphEditor(model), np.random.default_rng(0)
    table = editor.constant("table", drawn.random((_WORDS, width), np.float32))
    step = editor.constant("step", np.array(1 / _REACH, np.float32))
    zero = editor.constant("zero", np.array(0, np.uint8))
    scales = editor.constant("scales", np.full(width, 1 / (64 * width**0.5), np.float32))
    zeros = editor.constant("zeros", np.zeros(width, np.int8))
    tokens = editor.node("Gather", [table, "input_ids"], "words")
    for layer in range(layers):
        codes = drawn.integers(-64, 64, (width, width), np.int8)
        weights = [editor.constant(f"codes_{layer}", codes), scales, zeros]
        rounded = editor.node("QuantizeLinear", [tokens, step, zero], f"rounded_{layer}")
        inputs = editor.node("DequantizeLinear", [rounded, step, zero], f"inputs_{layer}")
        matrix = editor.node("DequantizeLinear", weights, f"matrix_{layer}", axis=1)
        tokens = editor.node("MatMul", [inputs, matrix], f"product_{layer}")
    along = editor.constant("along", np.array([1]))
    mean = editor.node("ReduceMean", [tokens, along], "mean", keepdims=0)
    mask = editor.node("Cast", ["attention_mask"], "mask", to=TensorProto.FLOAT)
    some = editor.node("ReduceMax", [mask, along], "some", keepdims=1)
    editor.node("Mul", [mean, some], "sentence_embedding")
    return editor.finish()


def _measure(width: int, seconds: float) -> float:
    cores = available_cores()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "products.onnx"
        save(products(width), path)
        options = BackendOptions("cpu", cores, "f32", pad_token_id=0, max_tokens=_TOKENS)
        backend = BACKENDS.load(ENGINE).load(path, options)
    texts = [np.arange(_TOKENS, dtype=np.int64) % _WORDS for _ in range(_TEXTS)]
    _runs_per_s(backend, texts, cores, 0)  # warm
    tokens_per_s = _runs_per_s(backend, texts, cores, seconds) * _TEXTS * _TOKENS
    return tokens_per_s * LAYERS * 2 * width**2


def _runs_per_s(backend: Backend, texts: Sequence[TokenIds], threads: int, seconds: float) -> float:
    started = time.perf_counter()

    def work(_: int) -> int:
        runs = 0
        while not runs or time.perf_counter() - started < seconds:
            backend.run(texts)
            runs += 1
        return runs

    with ThreadPoolExecutor(threads) as pool:
        runs = sum(pool.map(work, range(threads)))
    return runs / (time.perf_counter() - started)
