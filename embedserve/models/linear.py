"""Find the linear layers of an ONNX graph: products of an activation with a constant matrix.

Goes by structure, never by names, which differ between architectures. Changes nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from embedserve.models.graph import GraphEditor

Float32 = NDArray[np.float32]

Role = Literal["shared", "widening", "square", "narrowing"]
"""What a layer does with its features. In a transformer block `shared` is query, key and value,
`square` the attention's output, `widening` and `narrowing` the two halves of the feed-forward."""


@dataclass(frozen=True)
class Linear:
    """All products with constant matrices that read one tensor."""

    tensor: str
    """(..., features) float32, the tensor that is read."""
    outputs: tuple[str, ...]
    """Output tensor of each product."""
    weights: tuple[str, ...]
    """Constant of each product, (features, columns) float32."""
    role: Role


def find_linears(editor: GraphEditor, nodes: Iterable[NodeProto]) -> list[Linear]:
    """List the linear layers of a graph in order of their first product."""
    groups: dict[str, list[NodeProto]] = {}
    for node in nodes:
        is_product = node.op_type == "MatMul" and is_matrix(editor, node.input[1])
        if is_product and editor.constant_array(node.input[0]) is None:
            groups.setdefault(node.input[0], []).append(node)
    return [_linear(editor, tensor, group) for tensor, group in groups.items()]


def find_biases(editor: GraphEditor, nodes: list[NodeProto]) -> dict[str, NodeProto]:
    """Map each product's output that one addition of a constant vector reads, to that addition."""
    readers: dict[str, list[NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return {
        node.output[0]: readers[node.output[0]][0]
        for node in nodes
        if node.op_type == "MatMul"
        and editor.constant_array(node.input[1]) is not None
        and len(readers.get(node.output[0], ())) == 1
        and readers[node.output[0]][0].op_type == "Add"
        and constant_input(editor, readers[node.output[0]][0]) is not None
    }


def constant_input(editor: GraphEditor, node: NodeProto) -> str | None:
    """Return the name of the input of `node` that is a constant vector, if one is."""
    for name in node.input:
        array = editor.constant_array(name)
        if array is not None and array.ndim == 1:
            return str(name)
    return None


def is_matrix(editor: GraphEditor, name: str) -> bool:
    """Tell whether `name` is a constant matrix of float32."""
    array = editor.constant_array(name)
    return array is not None and array.ndim == 2 and array.dtype == np.float32


def constant(editor: GraphEditor, name: str | None) -> Float32:
    """Return a float constant that must be there."""
    array = editor.constant_array(name or "")
    if array is None:
        raise TypeError(f"This is a bug: `{name}` is not a constant of the graph.")
    return array


def joined_weights(editor: GraphEditor, linear: Linear) -> Float32:
    """Return the matrices of all products side by side, (features, all columns)."""
    return np.concatenate([constant(editor, name) for name in linear.weights], axis=1)


def _linear(editor: GraphEditor, tensor: str, nodes: list[NodeProto]) -> Linear:
    outputs = tuple(node.output[0] for node in nodes)
    weights = tuple(node.input[1] for node in nodes)
    rows, columns = constant(editor, weights[0]).shape
    role: Role = "square"
    if len(nodes) > 1:
        role = "shared"
    elif columns != rows:
        role = "widening" if columns > rows else "narrowing"
    return Linear(tensor, outputs, weights, role)
