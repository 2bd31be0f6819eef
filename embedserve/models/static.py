"""Recipe `int8` for OpenVINO: 8-bit products with activation scales that are fixed beforehand.

Written as QuantizeLinear and DequantizeLinear pairs, which the engine fuses into integer kernels. A
fixed scale depends on no text, so vectors do not depend on the batch. Its price is outliers: they
set the scale for all tokens. Two remedies: inputs are smoothed (see `smoothing`), and layers of the
roles that suffer most keep float inputs, with 8-bit weights whose inputs the engine quantizes by
itself in small groups of each token row ("dynamic", OpenVINO's dynamic quantization group size).

Everything that is not a linear layer stays in float. Measured figures: docs/quantization.md.
"""

from collections.abc import Set

import numpy as np
from onnx import ModelProto, NodeProto

from embedserve.models.calibration import Range, Ranges
from embedserve.models.graph import TINY, GraphEditor
from embedserve.models.integers import asymmetric, is_large_table, shrink_table, symmetric
from embedserve.models.linear import Role, constant, find_linears
from embedserve.models.smoothing import smooth

ALL_ROLES: frozenset[Role] = frozenset(("shared", "widening", "square", "narrowing"))


def quantize_static(
    model: ModelProto,
    ranges: Ranges,
    weight_limit: int,
    *,
    dynamic_roles: Set[Role],
) -> ModelProto:
    """Turn linear layers and large lookup tables into int8, in place.

    Layers of `dynamic_roles` get 8-bit weights only. `weight_limit` is the greatest weight code of
    the others, see `integers`.
    """
    editor = GraphEditor(model)
    editor.nodes = list(model.graph.node)
    dynamic: set[str] = set()
    static: dict[str, Range] = {}
    for linear in find_linears(editor, model.graph.node):
        if linear.role in dynamic_roles:
            dynamic.update(linear.outputs)
        else:
            seen = smooth(editor, linear, ranges[linear.tensor])
            static |= dict.fromkeys(linear.outputs, seen)
    nodes, editor.nodes = editor.nodes, []
    quantized: dict[str, str] = {}
    for node in nodes:
        if node.output[0] in dynamic:
            _weights_only(editor, node)
        elif node.output[0] in static:
            source = node.input[0]
            if source not in quantized:
                quantized[source] = _quantize(editor, source, static[node.output[0]])
            node.input[0] = quantized[source]
            _symmetric_weights(editor, node, weight_limit)
        elif is_large_table(editor, node):
            shrink_table(editor, node)
        else:
            editor.nodes.append(node)
    return editor.finish()


def _quantize(editor: GraphEditor, tensor: str, seen: Range) -> str:
    """Append the pair that rounds `tensor` to 256 steps over `seen`; return the rounded tensor."""
    low, high = min(float(seen.low.min()), 0.0), max(float(seen.high.max()), 0.0)
    step = max((high - low) / 255, TINY)
    scale = editor.constant(f"{tensor}_step", np.array(step, dtype=np.float32))
    zero_code = np.array(round(-low / step), dtype=np.uint8)
    zero = editor.constant(f"{tensor}_zero", zero_code)
    codes = editor.node("QuantizeLinear", [tensor, scale, zero], f"{tensor}_codes")
    return editor.node("DequantizeLinear", [codes, scale, zero], f"{tensor}_rounded")


def _symmetric_weights(editor: GraphEditor, node: NodeProto, limit: int) -> None:
    name = node.input[1]
    codes, scale = symmetric(constant(editor, name), axis=0, limit=limit)
    inputs = [
        editor.constant(f"{name}_codes", codes),
        editor.constant(f"{name}_scales", scale[0]),
        editor.constant(f"{name}_zeros", np.zeros(len(scale[0]), dtype=np.int8)),
    ]
    _product(editor, node, inputs)


def _weights_only(editor: GraphEditor, node: NodeProto) -> None:
    name = node.input[1]
    packed = asymmetric(constant(editor, name))
    inputs = [
        editor.constant(f"{name}_codes", packed.codes),
        editor.constant(f"{name}_scales", packed.scale),
        editor.constant(f"{name}_zeros", packed.zero_point),
    ]
    _product(editor, node, inputs)


def _product(editor: GraphEditor, node: NodeProto, inputs: list[str]) -> None:
    """Append `node` behind the operator that turns the codes of its weights into floats."""
    node.input[1] = editor.node("DequantizeLinear", inputs, f"{node.output[0]}_weights", axis=1)
    editor.nodes.append(node)
