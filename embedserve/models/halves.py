"""Recipes `bf16` and `fp16`: weights of 16 bits."""

import numpy as np
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from embedserve.models.graph import HIDDEN_STATES, GraphEditor

# Smaller constants (axes, epsilons, gains, biases) stay as they are: nothing to gain.
_MIN_ELEMENTS = 4096
_GREATEST = float(np.finfo(np.float16).max)


def store_halves(model: ModelProto) -> ModelProto:
    """Store large weights as fp16 and turn them back into fp32 in the graph, in place.

    The file is half as large; in which arithmetic it runs is the engine's business. fp16 holds
    three bits more than bf16, so bf16 arithmetic loses nothing by it. Weights beyond fp16's 65,504
    stay.
    """
    editor = GraphEditor(model)
    nodes = list(model.graph.node)
    names = [tensor.name for tensor in model.graph.initializer]
    halves: dict[str, str] = {}
    for name in names:
        array = editor.constant_array(name)
        if array is None or array.dtype != np.float32 or array.size < _MIN_ELEMENTS:
            continue
        if np.abs(array).max() <= _GREATEST:
            half = editor.constant(f"{name}_half", array.astype(np.float16))
            halves[name] = editor.node("Cast", [half], f"{name}_float", to=TensorProto.FLOAT)
    for node in nodes:
        node.input[:] = [halves.get(name, name) for name in node.input]
        editor.nodes.append(node)
    return editor.finish()


def compute_halves(model: ModelProto) -> ModelProto:
    """Make the network's float arithmetic fp16, in place; ids stay integers, the output fp32.

    For GPUs. Values beyond fp16's range, such as the -3.4e38 that masks attention, become its
    greatest ones. What follows the last hidden state, pooling and unit length, stays fp32: sums
    over a long text exceed 65,504, and what keeps a zero row finite is 0 in fp16. A graph without
    such a state, a reranker's, is fp16 up to its score.
    """
    [output] = [item.name for item in model.graph.output]
    seam = _last_hidden_state(model) or output
    network, head = _split(model, seam)
    in_head = {name for node in head for name in node.input}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in in_head:
            tensor.CopyFrom(_half(tensor))
    for node in network:
        _compute_half(node)
        node.output[:] = [f"{seam}_half" if name == seam else name for name in node.output]
    cast = helper.make_node("Cast", [f"{seam}_half"], [seam], to=TensorProto.FLOAT)
    editor = GraphEditor(model)
    editor.nodes = [*network, cast, *head]
    return editor.finish()


def _last_hidden_state(model: ModelProto) -> str | None:
    names = {name for node in model.graph.node for name in node.output}
    return next((name for name in HIDDEN_STATES if name in names), None)


def _split(model: ModelProto, seam: str) -> tuple[list[NodeProto], list[NodeProto]]:
    """Return the nodes that `seam` needs, and the others, in order."""
    needed, network, head = {seam}, list[NodeProto](), list[NodeProto]()
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            network.append(node)
        else:
            head.append(node)
    return network[::-1], head[::-1]


def _compute_half(node: NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
            attribute.t.CopyFrom(_half(attribute.t))
        elif node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16


def _half(tensor: TensorProto) -> TensorProto:
    array = np.clip(numpy_helper.to_array(tensor), -_GREATEST, _GREATEST).astype(np.float16)
    return numpy_helper.from_array(array, tensor.name)
