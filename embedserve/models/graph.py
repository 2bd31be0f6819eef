"""Small surgery on ONNX graphs: cut what is not needed, append pooling, save the same bytes twice.

Knows no framework and runs nothing.
"""

import hashlib
from collections.abc import Iterable, MutableSequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from embedserve.errors import ModelError

T = TypeVar("T")

EMBEDDING = "sentence_embedding"

# Keeps an all-zero row finite; sentence-transformers uses the same value.
TINY = 1e-12


class GraphEditor:
    """Append nodes and constants to an ONNX model, each named after its output."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.nodes: list[NodeProto] = []
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def constant_array(self, name: str) -> NDArray[Any] | None:
        """Return the value of a constant tensor, or None where `name` is computed."""
        tensor = self._tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Add a constant unless it is there, and return its name."""
        if name not in self._tensors:
            self._tensors[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: int) -> str:
        """Add a node of the standard operator set and return its output's name."""
        node = helper.make_node(op, inputs, [output], output)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in sorted(attributes.items()))
        self.nodes.append(node)
        return output

    def finish(self) -> ModelProto:
        """Put nodes and constants into the model, leave out what no output needs, return it."""
        graph = self.model.graph
        wanted = {output.name for output in graph.output}
        kept = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                kept.append(node)
                wanted.update(node.input)
        _replace(graph.node, reversed(kept))
        _replace(graph.initializer, [t for n, t in self._tensors.items() if n in wanted])
        del graph.value_info[:]
        onnx.checker.check_model(self.model)
        return self.model


def pool_and_normalize(model: ModelProto, *, pooling: str, dimensions: int) -> ModelProto:
    """Turn `token_embeddings` (batch, length, dimensions) into unit `sentence_embedding`.

    The exporter's own pooling is cut off: it sums with ReduceSum over the length, which onnxruntime
    adds up in another order for one text than for several, so that a text's vector would depend on
    its batch. A matrix product is the same either way. The mean needs no division by the number of
    tokens: normalising makes the mean and the sum the same vector.
    """
    editor = GraphEditor(model)
    editor.nodes = list(model.graph.node)
    first, last = (editor.constant(f"axis_{axis}", np.array([axis])) for axis in (1, -1))
    if pooling == "mean":
        mask = editor.node("Cast", ["attention_mask"], "pool_mask_float", to=TensorProto.FLOAT)
        row = editor.node("Unsqueeze", [mask, first], "pool_mask")
        total = editor.node("MatMul", [row, "token_embeddings"], "pool_sum")
        pooled = editor.node("Squeeze", [total, first], "pooled")
    elif pooling == "cls":
        zero = editor.constant("pool_first", np.array(0))
        pooled = editor.node("Gather", ["token_embeddings", zero], "pooled", axis=1)
    else:
        raise ModelError(f"Pooling `{pooling}` is not supported; `mean` and `cls` are.")
    tiny = editor.constant("tiny", np.array(TINY, dtype=np.float32))
    length = editor.node("ReduceL2", [pooled, last], "norm", keepdims=1)
    divisor = editor.node("Max", [length, tiny], "norm_guarded")
    for node in editor.nodes:
        if EMBEDDING in node.output:
            # The traced pooling goes: give its output another name, so that nothing needs it.
            node.output[list(node.output).index(EMBEDDING)] = "traced_embedding"
    editor.node("Div", [pooled, divisor], EMBEDDING)
    shape: list[str | int | None] = ["batch_size", dimensions]
    output = helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, shape)
    _replace(model.graph.output, [output])
    return editor.finish()


def save(model: ModelProto, path: Path) -> str:
    """Write `model` without traces of where it was made; return the sha256 of the bytes."""
    for node in model.graph.node:
        node.doc_string = ""
    model.doc_string = model.graph.doc_string = ""
    payload: bytes = model.SerializeToString(deterministic=True)
    path.write_bytes(payload)
    return hashlib.sha256(payload).hexdigest()


def _replace(field: MutableSequence[T], items: Iterable[T]) -> None:
    kept = list(items)
    del field[:]
    field.extend(kept)
