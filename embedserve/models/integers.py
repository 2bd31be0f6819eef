"""Floats to 8-bit codes and back: the arithmetic that the recipes share."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from embedserve.models.graph import TINY, GraphEditor
from embedserve.models.linear import constant, is_matrix
from embedserve.models.recipes import FULL_RANGE

Float32 = NDArray[np.float32]

# Smaller lookup tables (positions, token types) are not worth the extra nodes.
_TABLE_MIN_ROWS = 4096


@dataclass(frozen=True)
class Codes:
    """A matrix as integers: `(codes - zero_point) * scale`, one scale and zero for each column."""

    codes: NDArray[np.uint8]
    scale: Float32
    zero_point: NDArray[np.uint8]


def symmetric(
    weights: Float32, axis: int, limit: int = FULL_RANGE
) -> tuple[NDArray[np.int8], Float32]:
    """Return codes in -limit..limit and their scales; `axis` is the one that shares a scale."""
    greatest = np.abs(weights).max(axis=axis, keepdims=True)
    scale = np.maximum(greatest / np.float32(limit), np.float32(TINY))
    return np.clip(np.rint(weights / scale), -limit, limit).astype(np.int8), scale


def asymmetric(weights: Float32) -> Codes:
    """Return codes in 0..255 with one scale and one zero point for each column."""
    low = np.minimum(weights.min(axis=0), 0)
    high = np.maximum(weights.max(axis=0), 0)
    scale = np.maximum((high - low) / np.float32(255), np.float32(TINY)).astype(np.float32)
    zero = np.rint(-low / scale).astype(np.uint8)
    codes = np.clip(np.rint(weights / scale) + zero, 0, 255).astype(np.uint8)
    return Codes(codes, scale, zero)


def is_large_table(editor: GraphEditor, node: NodeProto) -> bool:
    """Tell whether `node` looks rows up in a constant table that is worth shrinking."""
    if node.op_type != "Gather" or not is_matrix(editor, node.input[0]):
        return False
    return len(constant(editor, node.input[0])) >= _TABLE_MIN_ROWS


def shrink_table(editor: GraphEditor, node: NodeProto) -> None:
    """Append a lookup of int8 rows, each with its own scale, in place of an fp32 one."""
    (table, ids), output = node.input, node.output[0]
    codes, scale = symmetric(constant(editor, table), axis=1)
    taken = editor.node(
        "Gather", [editor.constant(f"{table}_codes", codes), ids], f"{output}_codes"
    )
    floats = editor.node("Cast", [taken], f"{output}_float", to=TensorProto.FLOAT)
    scales = editor.constant(f"{table}_scales", scale)
    editor.node("Mul", [floats, editor.node("Gather", [scales, ids], f"{output}_scale")], output)
