"""Recipe `int8` for onnxruntime: 8-bit matrix products, one activation scale for each token row.

Standard dynamic quantization takes one scale for a whole batch, so a text's vector depends on its
neighbours. Here each token's row has its own range, so it does not. Only standard ONNX operators
are used.

For a row x with least value `low` and range `r`, codes u = round(255 (x - low) / r); for a weight
matrix W with one scale per column, W = s V, V in int8. Then

    x W + b = (u V) s r / 255 + low colsum(V) s + b

and the product u V is exact integer arithmetic, whatever the batch. Inputs of query, key, value and
of the first half of the feed-forward are smoothed before (see `smoothing`): they carry the outliers
that a row's one range has to cover. Measured figures are in docs/quantization.md.

x86 CPUs without VNNI multiply u8 by s8 into saturating 16-bit sums; there the weights get 7 bits.
"""

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from embedserve.models.calibration import Ranges
from embedserve.models.graph import TINY, GraphEditor
from embedserve.models.integers import is_large_table, shrink_table, symmetric
from embedserve.models.linear import constant, constant_input, find_biases, find_linears
from embedserve.models.smoothing import smooth

# Smoothing the other two costs an operator over more features and gained nothing measurable
# (.9993 mean cosine either way; strong smoothing of `narrowing` lost .001).
_SMOOTHED_ROLES = ("shared", "widening")


@dataclass(frozen=True)
class _Rows:
    """Names of the tensors that stand for one quantized activation."""

    codes: str
    """(batch, length, features) uint8."""
    low_and_one: str
    """(batch, length, 2): the row's least value, and 1 (the factor of the bias)."""
    span: str
    """(batch, length, 1): the row's greatest value less its least."""


def quantize_rows(model: ModelProto, ranges: Ranges, weight_limit: int) -> ModelProto:
    """Turn linear layers and large lookup tables into int8, in place.

    `weight_limit` is the greatest weight code, see `integers`.
    """
    editor = GraphEditor(model)
    editor.nodes = list(model.graph.node)
    for linear in find_linears(editor, model.graph.node):
        if linear.role in _SMOOTHED_ROLES:
            smooth(editor, linear, ranges[linear.tensor])
    nodes, editor.nodes = editor.nodes, []
    outputs = {name for one in find_linears(editor, nodes) for name in one.outputs}
    biases = find_biases(editor, nodes)
    folded = {id(biases[output]) for output in outputs & set(biases)}
    rewriter = _Rewriter(editor, weight_limit)
    for node in nodes:
        if id(node) in folded:
            continue
        if node.output[0] in outputs:
            rewriter.matmul(node, biases.get(node.output[0]))
        elif is_large_table(editor, node):
            shrink_table(editor, node)
        else:
            editor.nodes.append(node)
    return editor.finish()


class _Rewriter:
    """Holds the activations that are quantized already, so that Q, K and V share one."""

    def __init__(self, editor: GraphEditor, weight_limit: int) -> None:
        self.editor = editor
        self._weight_limit = weight_limit
        self._rows: dict[str, _Rows] = {}
        self._count = 0

    def matmul(self, node: NodeProto, bias_add: NodeProto | None) -> None:
        """Replace a product, and the addition of a bias right behind it, by its int8 form."""
        edit, name = self.editor, f"int8_{self._count}"
        self._count += 1
        rows = self._quantize_rows(node.input[0])
        weights = constant(edit, node.input[1])
        codes, scale = symmetric(weights, axis=0, limit=self._weight_limit)
        sums = (codes.sum(axis=0, dtype=np.int64) * scale[0].astype(np.float64)).astype(np.float32)
        bias, output = np.zeros_like(sums), node.output[0]
        if bias_add is not None:
            bias, output = constant(edit, constant_input(edit, bias_add)), bias_add.output[0]

        matrix = edit.constant(f"{name}_weights", codes)
        scales = edit.constant(f"{name}_scales", scale[0] / np.float32(255))
        offsets = edit.constant(f"{name}_offsets", np.stack([sums, bias]))
        product = edit.node("MatMulInteger", [rows.codes, matrix], f"{name}_product")
        floats = edit.node("Cast", [product], f"{name}_float", to=TensorProto.FLOAT)
        by_column = edit.node("Mul", [floats, scales], f"{name}_by_column")
        by_row = edit.node("Mul", [by_column, rows.span], f"{name}_by_row")
        # One narrow product adds both corrections; as separate steps they cost 7% of the speed.
        offset = edit.node("MatMul", [rows.low_and_one, offsets], f"{name}_offset")
        edit.node("Add", [by_row, offset], output)

    def _quantize_rows(self, tensor: str) -> _Rows:
        if tensor not in self._rows:
            self._rows[tensor] = self._add_quantization(tensor, f"rows_{len(self._rows)}")
        return self._rows[tensor]

    def _add_quantization(self, tensor: str, name: str) -> _Rows:
        edit = self.editor
        last = edit.constant("axis_-1", np.array([-1]))
        tiny = edit.constant("tiny", np.array(TINY, dtype=np.float32))
        step = edit.constant("code_step", np.array(1 / 255, dtype=np.float32))
        zero = edit.constant("code_zero", np.array(0, dtype=np.uint8))
        low = edit.node("ReduceMin", [tensor, last], f"{name}_low", keepdims=1)
        high = edit.node("ReduceMax", [tensor, last], f"{name}_high", keepdims=1)
        # A row of equal values has no range; the guard keeps it at code 0 instead of NaN.
        span = edit.node("Sub", [high, low], f"{name}_range")
        span = edit.node("Max", [span, tiny], f"{name}_span")
        above = edit.node("Sub", [tensor, low], f"{name}_above")
        inverse = edit.node("Reciprocal", [span], f"{name}_inverse")
        share = edit.node("Mul", [above, inverse], f"{name}_share")
        codes = edit.node("QuantizeLinear", [share, step, zero], f"{name}_codes")
        one = edit.node("Div", [span, span], f"{name}_one")
        both = edit.node("Concat", [low, one], f"{name}_low_and_one", axis=-1)
        return _Rows(codes, both, span)
