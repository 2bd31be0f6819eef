"""A sentence encoder of one attention layer, as an ONNX file made of plain operators."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from embedserve.types import EncoderSpec, TokenIds

WORDS = 500
PAD = 1
# No multiple of a bucket's step: the table of positions ends within the last bucket.
MAX_TOKENS = 100
WIDTH = 64
HEADS = 4
DIMENSIONS = 48

_HEAD = WIDTH // HEADS
# output, operator, inputs, attributes. As exporters write BERT; `(batch, length, width)`.
_NODES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("words", "Gather", "word_table input_ids", {}),
    ("shape", "Shape", "input_ids", {}),
    ("length", "Gather", "shape one", {}),
    ("length_1d", "Unsqueeze", "length zero_1d", {}),
    ("places", "Slice", "position_table zero_1d length_1d zero_1d", {}),
    # Fails for a text that is longer than the table, as a model's own graph does.
    ("embedded", "Add", "words places", {}),
    ("mask", "Cast", "attention_mask", {"to": TensorProto.FLOAT}),
    ("mask_4d", "Unsqueeze", "mask one_two", {}),
    ("left_out", "Sub", "one_float mask_4d", {}),
    ("bias", "Mul", "left_out lowest", {}),
    *[
        row
        for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3]))
        for row in [
            (f"{name}_flat", "MatMul", f"embedded {name}_weight", {}),
            (f"{name}_split", "Reshape", f"{name}_flat by_head", {}),
            (name, "Transpose", f"{name}_split", {"perm": order}),
        ]
    ],
    ("raw_scores", "MatMul", "q k", {}),
    ("scaled", "Mul", "raw_scores scale", {}),
    ("scores", "Add", "scaled bias", {}),
    ("weights", "Softmax", "scores", {"axis": -1}),
    ("attended", "MatMul", "weights v", {}),
    ("attended_back", "Transpose", "attended", {"perm": [0, 2, 1, 3]}),
    ("joined", "Reshape", "attended_back by_width", {}),
    ("residual", "Add", "joined embedded", {}),
    ("normal", "LayerNormalization", "residual gain shift", {"axis": -1}),
    ("up", "MatMul", "normal up_weight", {}),
    ("active", "Relu", "up", {}),
    ("tokens", "MatMul", "active down_weight", {}),
    # A product with the mask sums tokens in one order whatever the batch.
    ("mask_row", "Unsqueeze", "mask one_1d", {}),
    ("summed", "MatMul", "mask_row tokens", {}),
    ("pooled", "Squeeze", "summed one_1d", {}),
    ("long", "ReduceL2", "pooled one_1d", {"keepdims": 1}),
    ("sentence_embedding", "Div", "pooled long", {}),
]


def write_tiny_graph(path: Path, *, output: str = "sentence_embedding") -> Path:
    """Write the encoder: input_ids, attention_mask -> unit vectors."""
    inputs = ["input_ids", "attention_mask"]
    nodes = [
        helper.make_node(op, names.split(), [output if name == "sentence_embedding" else name], **a)
        for name, op, names, a in _NODES
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "length"]) for n in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", DIMENSIONS])],
        [numpy_helper.from_array(array, name) for name, array in _constants().items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def random_text(length: int, seed: int = 0) -> TokenIds:
    """Return ids without the one that pads."""
    return np.random.default_rng(seed).integers(PAD + 1, WORDS, length, dtype=np.int64)


def _constants() -> dict[str, NDArray[np.generic]]:
    generator = np.random.default_rng(5)

    def weight(*shape: int) -> NDArray[np.float32]:
        return generator.standard_normal(shape, dtype=np.float32) / np.float32(shape[0] ** 0.5)

    tables = {"word_table": weight(WORDS, WIDTH) * 20, "position_table": weight(MAX_TOKENS, WIDTH)}
    tables |= {f"{name}_weight": weight(WIDTH, WIDTH) for name in "qkv"}
    tables |= {"up_weight": weight(WIDTH, 128), "down_weight": weight(128, DIMENSIONS)}
    floats = {"one_float": 1.0, "lowest": -1e9, "scale": _HEAD**-0.5}
    return {
        **tables,
        **{name: np.array(value, dtype=np.float32) for name, value in floats.items()},
        "gain": np.ones(WIDTH, dtype=np.float32),
        "shift": np.zeros(WIDTH, dtype=np.float32),
        "one": np.array(1),
        "zero_1d": np.array([0]),
        "one_1d": np.array([1]),
        "one_two": np.array([1, 2]),
        "by_head": np.array([0, 0, HEADS, _HEAD]),
        "by_width": np.array([0, 0, WIDTH]),
    }


def tiny_spec(folder: Path) -> EncoderSpec:
    """Write the encoder with a tokenizer whose words are `w0`, `w1` and so on."""
    words = {f"w{number}": number for number in range(WORDS)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    return EncoderSpec(
        artefact="0" * 64,
        onnx_path=write_tiny_graph(folder / "tiny.onnx"),
        tokenizer_path=folder / "tokenizer.json",
        max_tokens=MAX_TOKENS,
        dimensions=DIMENSIONS,
        pad_token_id=PAD,
    )
