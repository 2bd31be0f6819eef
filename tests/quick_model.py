"""all-minilm with a network of no depth: its tokenizer, lengths and name, at no cost.

For tests of what becomes of many documents. Texts are cut as for the real model, and each has a
vector of its own; what a vector means is left to tests with the real one.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from embedserve.models import installed, manifest
from embedserve.models.manifest import ONNX_FILE, TOKENIZER_FILE, Canary, Runtime
from tests.tiny_installed import CANARY, canary_vector

MODEL = "all-minilm"
IDS = 30_522
DIMENSIONS = 32

_NODES: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("mask", "Cast", "attention_mask", {"to": TensorProto.FLOAT}),
    ("tokens", "Gather", "word_table input_ids", {}),
    ("mask_row", "Unsqueeze", "mask one_1d", {}),
    # A product with the mask sums tokens in one order whatever the batch.
    ("summed", "MatMul", "mask_row tokens", {}),
    ("pooled", "Squeeze", "summed one_1d", {}),
    ("long", "ReduceL2", "pooled one_1d", {"keepdims": 1}),
    ("sentence_embedding", "Div", "pooled long", {}),
)


def install_quick(real: Path, home: Path) -> None:
    """Put it into an empty home as the default model; `real` is a home that has all-minilm."""
    source = installed.resolve(real / "models", MODEL)
    folder = home / "models" / source.folder.relative_to(real / "models")
    folder.mkdir(parents=True)
    shutil.copyfile(source.folder / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    (folder / ONNX_FILE).write_bytes(_graph().SerializeToString())
    files = {name: manifest.digest_file(folder / name) for name in (ONNX_FILE, TOKENIZER_FILE)}
    written = replace(
        source.manifest,
        dimensions=DIMENSIONS,
        matryoshka_dimensions=(),
        recipe="fp32",
        method="made for a test",
        runtime=Runtime("onnxruntime", "f32", 0, source.manifest.runtime.pad_token_id),
        files=files,
        canary=Canary(CANARY, ()),
    )
    manifest.write(folder, written)
    vector = canary_vector(installed.resolve(home / "models", MODEL))
    manifest.write(folder, replace(written, canary=Canary(CANARY, tuple(vector.tolist()))))


def _graph() -> onnx.ModelProto:
    table = np.random.default_rng(3).standard_normal((IDS, DIMENSIONS), dtype=np.float32)
    inputs = ("input_ids", "attention_mask")
    shapes = [
        helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "length"]) for n in inputs
    ]
    output = helper.make_tensor_value_info(
        "sentence_embedding", TensorProto.FLOAT, ["batch", DIMENSIONS]
    )
    constants = {"word_table": table, "one_1d": np.array([1])}
    graph = helper.make_graph(
        [helper.make_node(op, names.split(), [to], **more) for to, op, names, more in _NODES],
        "quick",
        shapes,
        [output],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model
