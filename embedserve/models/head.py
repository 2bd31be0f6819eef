"""Puts pooling, what follows it, and unit length behind a network's graph; or names its score.

One text's output must not depend on its neighbours, bit for bit, nor on padding at its right end.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper

from embedserve.errors import ModelError
from embedserve.models.branches import drop_branches
from embedserve.models.checkpoint import TOKENIZER, Facts
from embedserve.models.graph import EMBEDDING, HIDDEN_STATES, TINY, GraphEditor, replace_items
from embedserve.models.json_file import read_object
from embedserve.models.modules import Module
from embedserve.models.simplify import simplify
from embedserve.models.weights import WEIGHTS, read_tensors

SCORE = "score"

_LOGITS = ("logits",)
_TOKEN_TYPES = "token_type_ids"

# torch.nn.LayerNorm's own, which the module has no setting for.
_LAYER_NORM_EPSILON = 1e-5

_ACTIVATIONS = {"Tanh": "Tanh", "ReLU": "Relu", "Sigmoid": "Sigmoid"}


def attach_head(model: ModelProto, facts: Facts, folder: Path) -> ModelProto:
    """Give `model` one output, in place: `sentence_embedding` (batch, dimensions) of unit length.

    For a reranker it is `score` (batch, 1), the classifier's logit. Inputs are ids and mask: token
    types are worked out in the graph. Whatever else the graph gave is cut off. Weights of modules
    behind the pooling are read from the checkpoint `folder`.
    """
    simplify(model)
    drop_branches(model)
    editor = GraphEditor(model)
    editor.nodes = list(model.graph.node)
    if facts.kind == "reranker":
        output = _take_name(editor, SCORE)
        _derive_token_types(editor, folder)
        editor.node("Identity", [_find_output(model, _LOGITS)], output)
    else:
        tokens = _find_output(model, HIDDEN_STATES)
        output = _take_name(editor, EMBEDDING)
        _fix_token_types(editor)
        steps = (
            facts.modules[:-1] if facts.modules[-1:] == (Module("Normalize"),) else facts.modules
        )
        pooled = _pool(editor, tokens, facts.pooling, is_scaled=bool(steps))
        for place, step in enumerate(steps):
            pooled = _apply(editor, pooled, step, folder=folder, name=f"head_{place}")
        _normalize(editor, pooled, output)
    shape: list[str | int | None] = ["batch_size", facts.dimensions]
    told = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
    replace_items(model.graph.output, [told])
    return editor.finish()


def _find_output(model: ModelProto, names: tuple[str, ...]) -> str:
    given = [output.name for output in model.graph.output]
    for name in names:
        if name in given:
            return name
    raise ModelError(
        f"The graph gives {', '.join(f'`{name}`' for name in given)}; `{'` or `'.join(names)}` is "
        "needed. Pull it with `--ignore-onnx` to export it from its weights."
    )


def _take_name(editor: GraphEditor, name: str) -> str:
    """Free `name`: a pooling that the exporter traced is renamed, so that nothing needs it."""
    for node in editor.nodes:
        for field in (node.input, node.output):
            replace_items(field, [f"traced_{item}" if item == name else item for item in field])
    return name


def _derive_token_types(editor: GraphEditor, folder: Path) -> None:
    """Work the token types of a pair out of its ids: 0 up to the first separator, 1 behind it.

    So a pair is a row of ids like any other text, for every engine and for the scheduler. A
    separator that a user writes into a query ends it early; the tokenizer takes it for one too.
    """
    inputs = editor.model.graph.input
    if _TOKEN_TYPES not in {item.name for item in inputs}:
        return
    nodes, editor.nodes = editor.nodes, []
    separator = editor.constant("separator", np.array(_separator_id(folder), dtype=np.int64))
    axis = editor.constant("separator_axis", np.array(1, dtype=np.int64))
    none = editor.constant("no_separator", np.array(0, dtype=np.int64))
    found = editor.node("Equal", ["input_ids", separator], "is_separator")
    count = editor.node("Cast", [found], "separator_count", to=TensorProto.INT64)
    before = editor.node("CumSum", [count, axis], "separators_before", exclusive=1)
    is_second = editor.node("Greater", [before, none], "is_second_text")
    editor.node("Cast", [is_second], _TOKEN_TYPES, to=TensorProto.INT64)
    # In front, because whatever asks for token types comes later.
    editor.nodes += nodes
    replace_items(inputs, [item for item in inputs if item.name != _TOKEN_TYPES])


def _separator_id(folder: Path) -> int:
    """Return the id that the tokenizer puts behind the first text of a pair."""
    post = read_object(folder / TOKENIZER).get("post_processor") or {}
    if isinstance(post.get("sep"), list):  # the form of BERT's own post-processor
        return int(post["sep"][1])
    template = [item.get("SpecialToken", {}).get("id") for item in post.get("pair", [])]
    known = post.get("special_tokens", {})
    ids = [known[name]["ids"][0] for name in template if name in known]
    if len(ids) < 2:
        raise ModelError(
            f"`{folder / TOKENIZER}` does not say what stands between the two texts of a pair, "
            "which this reranker needs. Fetch a tokenizer with a template for pairs."
        )
    return int(ids[1])


def _fix_token_types(editor: GraphEditor) -> None:
    """Make the token types of a text alone, which are 0, part of the graph."""
    inputs = editor.model.graph.input
    if _TOKEN_TYPES not in {item.name for item in inputs}:
        return
    for node in editor.nodes:
        if node.op_type == "Gather" and node.input[1] == _TOKEN_TYPES:
            _fold_row(editor, node)
    shape = helper.make_node("Shape", ["input_ids"], ["token_types_shape"], "token_types_shape")
    zero = editor.constant("token_type", np.array(0, dtype=np.int64))
    zeros = helper.make_node("Expand", [zero, shape.output[0]], [_TOKEN_TYPES], _TOKEN_TYPES)
    # In front, because whatever still asks for token types comes later; left out if nothing does.
    editor.nodes[:0] = [shape, zeros]
    replace_items(inputs, [item for item in inputs if item.name != _TOKEN_TYPES])


def _fold_row(editor: GraphEditor, lookup: onnx.NodeProto) -> None:
    """Replace a lookup of type 0 by the row itself where it is only added to something."""
    table = editor.constant_array(lookup.input[0])
    users = [node for node in editor.nodes if lookup.output[0] in node.input]
    if table is None or table.ndim != 2 or any(node.op_type != "Add" for node in users):
        return
    row = editor.constant(f"{lookup.output[0]}_row", table[0])
    for node in users:
        replace_items(node.input, [row if i == lookup.output[0] else i for i in node.input])


def _pool(editor: GraphEditor, tokens: str, pooling: str, *, is_scaled: bool) -> str:
    """Turn tokens (batch, length, features) into one row a text, (batch, features).

    Means are a matrix product of the mask with the tokens: onnxruntime adds up a ReduceSum in
    another order for one text than for several. They are divided by the number of tokens only
    if `is_scaled`: the final normalisation makes the mean and the sum the same vector.
    """
    axis = editor.constant("pool_axis", np.array([1]))
    if pooling == "cls":
        zero = editor.constant("pool_first", np.array(0))
        return editor.node("Gather", [tokens, zero], "pooled", axis=1)
    if pooling == "lasttoken":
        one = editor.constant("pool_one", np.array(1))
        count = editor.node("ReduceSum", ["attention_mask", axis], "pool_count", keepdims=1)
        last = editor.node("Sub", [count, one], "pool_last")
        return editor.node("GatherND", [tokens, last], "pooled", batch_dims=1)
    if pooling == "max":
        last_axis = editor.constant("pool_last_axis", np.array([-1]))
        lowest = editor.constant("pool_lowest", np.array(np.finfo(np.float32).min))
        is_token = editor.node("Cast", ["attention_mask"], "pool_is_token", to=TensorProto.BOOL)
        column = editor.node("Unsqueeze", [is_token, last_axis], "pool_column")
        masked = editor.node("Where", [column, tokens, lowest], "pool_masked")
        return editor.node("ReduceMax", [masked, axis], "pooled", keepdims=0)
    mask = editor.node("Cast", ["attention_mask"], "pool_mask_float", to=TensorProto.FLOAT)
    row = editor.node("Unsqueeze", [mask, axis], "pool_mask")
    total = editor.node("MatMul", [row, tokens], "pool_sum")
    if not is_scaled:
        return editor.node("Squeeze", [total, axis], "pooled")
    flat = editor.node("Squeeze", [total, axis], "pool_total")
    # A sum of ones is exact in any order.
    count = editor.node("ReduceSum", [mask, axis], "pool_count", keepdims=1)
    if pooling == "mean_sqrt_len_tokens":
        count = editor.node("Sqrt", [count], "pool_root")
    return editor.node("Div", [flat, count], "pooled")


def _apply(editor: GraphEditor, rows: str, module: Module, *, folder: Path, name: str) -> str:
    """Append one module of sentence-transformers behind `rows` (batch, features)."""
    if module.kind == "Normalize":
        return _normalize(editor, rows, name)
    path = folder / module.folder / WEIGHTS
    tensors = read_tensors(path)
    try:
        if module.kind == "LayerNorm":
            gains = editor.constant(f"{name}_gains", tensors["norm.weight"])
            bias = editor.constant(f"{name}_bias", tensors["norm.bias"])
            inputs = [rows, gains, bias]
            epsilon = _LAYER_NORM_EPSILON
            return editor.node("LayerNormalization", inputs, name, axis=-1, epsilon=epsilon)
        matrix = editor.constant(f"{name}_matrix", tensors["linear.weight"].T)
    except KeyError as error:
        raise ModelError(f"`{path}` has no tensor {error}. Fetch it again.") from error
    rows = editor.node("MatMul", [rows, matrix], f"{name}_product")
    if "linear.bias" in tensors:
        bias = editor.constant(f"{name}_bias", tensors["linear.bias"])
        rows = editor.node("Add", [rows, bias], f"{name}_sum")
    if module.activation in _ACTIVATIONS:
        rows = editor.node(_ACTIVATIONS[module.activation], [rows], name)
    return rows


def _normalize(editor: GraphEditor, rows: str, output: str) -> str:
    axis = editor.constant("norm_axis", np.array([-1]))
    tiny = editor.constant("tiny", np.array(TINY, dtype=np.float32))
    length = editor.node("ReduceL2", [rows, axis], f"{output}_norm", keepdims=1)
    divisor = editor.node("Max", [length, tiny], f"{output}_norm_guarded")
    return editor.node("Div", [rows, divisor], output)
