"""Graphs of a few nodes, for tests of what is done to them."""

from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]


def run(model: ModelProto, **feeds: NDArray[Any]) -> Floats:
    """Return the first output of a graph."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    rows: Floats = session.run(None, feeds)[0]
    return rows


def graph_of(
    nodes: list[tuple[str, str, str]],
    constants: dict[str, NDArray[Any]],
    *,
    kind: int,
    rank: int = 2,
) -> ModelProto:
    """Make a graph from `x` to `sentence_embedding` of rows (output, operator, inputs)."""
    graph = helper.make_graph(
        [helper.make_node(op, names.split(), [output]) for output, op, names in nodes],
        "small",
        [helper.make_tensor_value_info("x", kind, [None, None])],
        [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, [None] * rank)],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def drawn(*shape: int, seed: int = 0) -> Floats:
    """Return normal random numbers."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
