"""Gives graphs of older exporters the form of newer ones, so that recipes need to know one form.

Constants become initializers, and a layer norm written out in nine operators becomes one. Nodes
that nothing needs any more are left where they are; `GraphEditor.finish` takes them out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from embedserve.models.graph import replace_items


def simplify(model: ModelProto) -> None:
    """Rewrite `model` in place; it gives the same but for rounding."""
    _lift_constants(model)
    pattern = _LayerNorms(model)
    replace_items(model.graph.node, [pattern.fused(node) or node for node in model.graph.node])


def _lift_constants(model: ModelProto) -> None:
    kept = []
    for node in model.graph.node:
        values = [item.t for item in node.attribute if item.name == "value"]
        if node.op_type != "Constant" or not values:
            kept.append(node)
            continue
        tensor = model.graph.initializer.add()
        tensor.CopyFrom(values[0])
        tensor.name = node.output[0]
    replace_items(model.graph.node, kept)


@dataclass(frozen=True)
class _Scaled:
    """One operand that is computed, and one that is constant."""

    tensor: str
    constant: str


class _LayerNorms:
    """Finds (x - mean) / sqrt(mean((x - mean)^2) + epsilon) * gains + bias over the last axis."""

    def __init__(self, model: ModelProto) -> None:
        self._producers = {name: node for node in model.graph.node for name in node.output}
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def fused(self, node: NodeProto) -> NodeProto | None:
        """Return one operator in the place of the final addition, or None for any other node."""
        biased = self._scaled(node, "Add")
        scaled = biased and self._scaled(self._producers.get(biased.tensor), "Mul")
        if not biased or not scaled:
            return None
        division = self._producer(scaled.tensor, "Div")
        centred = division and self._producer(division.input[0], "Sub")
        root = division and self._producer(division.input[1], "Sqrt")
        shifted = root and self._scaled(self._producers.get(root.input[0]), "Add")
        if not centred or not shifted or not self._is_variance(shifted.tensor, centred):
            return None
        epsilon = self._array(shifted.constant)
        rows, output = centred.input[0], node.output[0]
        if self._mean_of(centred.input[1]) != rows or epsilon is None or epsilon.size != 1:
            return None
        inputs = [rows, scaled.constant, biased.constant]
        return helper.make_node(
            "LayerNormalization", inputs, [output], output, axis=-1, epsilon=float(epsilon.item())
        )

    def _is_variance(self, name: str, centred: NodeProto) -> bool:
        power = self._producer(self._mean_of(name) or "", "Pow")
        if power is None:
            return False
        exponent = self._array(power.input[1])
        # Some exporters write the difference down twice.
        base = self._producer(power.input[0], "Sub")
        is_square = exponent is not None and exponent.size == 1 and exponent.item() == 2
        return is_square and base is not None and list(base.input) == list(centred.input)

    def _mean_of(self, name: str) -> str | None:
        """Return what `name` is the mean of, over the last axis, which is kept."""
        node = self._producer(name, "ReduceMean")
        if node is None:
            return None
        settings = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        axes = settings.get("axes")
        if len(node.input) == 2 and (array := self._array(node.input[1])) is not None:
            axes = array.tolist()
        is_last = axes is not None and list(axes) == [-1] and settings.get("keepdims", 1) == 1
        return str(node.input[0]) if is_last else None

    def _scaled(self, node: NodeProto | None, op: str) -> _Scaled | None:
        if node is None or node.op_type != op:
            return None
        constants = [name for name in node.input if name in self._tensors]
        others = [name for name in node.input if name not in self._tensors]
        return _Scaled(others[0], constants[0]) if len(constants) == len(others) == 1 else None

    def _producer(self, name: str, op: str) -> NodeProto | None:
        node = self._producers.get(name)
        return node if node is not None and node.op_type == op else None

    def _array(self, name: str) -> NDArray[np.generic] | None:
        tensor = self._tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)
