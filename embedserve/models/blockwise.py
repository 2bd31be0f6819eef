"""Recipes `int8-precise` and `int4` for onnxruntime: weights in blocks with a scale each.

Uses onnxruntime's MatMulNBits: a column of weights is cut into blocks, and the input of each token
is rounded to 8 bits in the same blocks while the product is made, so one outlier spoils one block.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from embedserve.models.graph import TINY, GraphEditor
from embedserve.models.integers import is_large_table, shrink_table
from embedserve.models.linear import Float32, constant, find_linears

_DOMAIN = "com.microsoft"
# Rows of weights that share a scale: the sizes that its kernels are written for.
_BLOCK_ROWS = {8: 64, 4: 32}
# "Inputs may be rounded to int8"; without it the weights are turned into fp32 first, at half speed.
_ACCURACY_LEVEL = 4


def quantize_blocks(model: ModelProto, bits: int) -> ModelProto:
    """Turn the weights of linear layers into 8 or 4 bits, and large lookup tables into int8."""
    editor = GraphEditor(model)
    outputs = {o for one in find_linears(editor, model.graph.node) for o in one.outputs}
    for node in model.graph.node:
        if node.output[0] in outputs:
            _append_product(editor, node, bits)
        elif is_large_table(editor, node):
            shrink_table(editor, node)
        else:
            editor.nodes.append(node)
    if _DOMAIN not in {one.domain for one in model.opset_import}:
        model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return editor.finish()


def _append_product(editor: GraphEditor, node: NodeProto, bits: int) -> None:
    name, weights = node.input[1], constant(editor, node.input[1])
    rows, columns = weights.shape
    codes, scales = _pack(weights, bits)
    product = helper.make_node(
        "MatMulNBits",
        [
            node.input[0],
            editor.constant(f"{name}_blocks", codes),
            editor.constant(f"{name}_block_scales", scales),
        ],
        [node.output[0]],
        node.output[0],
        domain=_DOMAIN,
        K=rows,
        N=columns,
        bits=bits,
        block_size=_BLOCK_ROWS[bits],
        accuracy_level=_ACCURACY_LEVEL,
    )
    editor.nodes.append(product)


def _pack(weights: Float32, bits: int) -> tuple[NDArray[np.uint8], Float32]:
    """Return (columns, blocks, bytes) codes and (columns, blocks) scales; the zero code is 2^(b-1).

    The last block is filled up with zeros.
    """
    rows, columns = weights.shape
    block = _BLOCK_ROWS[bits]
    blocks = -(-rows // block)
    padded = np.zeros((columns, blocks * block), dtype=np.float32)
    padded[:, :rows] = weights.T
    cut = padded.reshape(columns, blocks, block)
    middle = 2 ** (bits - 1)
    # The value farthest from zero gets code 0, which lies one step farther out than the highest
    # code: half a step of accuracy more than a symmetric range.
    farthest = np.take_along_axis(cut, np.abs(cut).argmax(axis=2, keepdims=True), axis=2)
    scale = np.where(np.abs(farthest) < TINY, np.float32(1), farthest / np.float32(-middle))
    codes = np.clip(np.rint(cut / scale) + middle, 0, 2**bits - 1).astype(np.uint8)
    if bits == 4:  # two codes a byte, the earlier one in the low half
        codes = codes[:, :, 0::2] | (codes[:, :, 1::2] << 4)
    return codes, scale[:, :, 0].astype(np.float32)
