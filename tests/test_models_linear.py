"""Linear layers: found, observed, and smoothed without a change of what they compute."""

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from embedserve.models.calibration import Range, Ranges, observing_graph, read_ranges
from embedserve.models.graph import GraphEditor
from embedserve.models.linear import find_biases, find_linears
from embedserve.models.smoothing import smooth
from tests.small_graph import Floats, drawn, graph_of, run

WIDTH = 8

# -- smoothing --------------------------------------------------------------------------------

_GAINS = {
    "gain": drawn(WIDTH, seed=1) + 2,
    "shift": drawn(WIDTH, seed=2),
    "first": drawn(WIDTH, 4 * WIDTH, seed=3),
    "second": drawn(WIDTH, 4 * WIDTH, seed=4),
}
_PRODUCT = ("sentence_embedding", "MatMul", "normal first")
# Nodes; how many operators smoothing adds.
SMOOTHED = {
    "gain and shift of a layer norm": (
        [("normal", "LayerNormalization", "x gain shift"), _PRODUCT],
        0,
    ),
    "a constant factor": ([("normal", "Mul", "x gain"), _PRODUCT], 0),
    "a constant factor in front": ([("normal", "Mul", "gain x"), _PRODUCT], 0),
    "two products of one input": (
        [
            ("normal", "LayerNormalization", "x gain shift"),
            ("one", "MatMul", "normal first"),
            ("two", "MatMul", "normal second"),
            ("sentence_embedding", "Add", "one two"),
        ],
        0,
    ),
    "an input that something else reads": (
        [
            ("normal", "LayerNormalization", "x gain shift"),
            ("one", "MatMul", "normal first"),
            ("residual", "Concat", "normal normal normal normal"),
            ("sentence_embedding", "Add", "one residual"),
        ],
        1,
    ),
    "an input that nothing constant makes": ([("normal", "Tanh", "x"), _PRODUCT], 1),
    "a product of two that are computed": ([("normal", "Mul", "x x"), _PRODUCT], 1),
}


@pytest.mark.parametrize("what", SMOOTHED)
def test_smoothing_changes_rounding_only(what: str) -> None:
    nodes, added = SMOOTHED[what]
    model = graph_of(nodes, _GAINS, kind=TensorProto.FLOAT)
    for node in model.graph.node:
        if node.op_type == "Concat":
            node.attribute.append(helper.make_attribute("axis", 1))
    # Large outliers in some features, so that the factors are far from 1.
    x = drawn(16, WIDTH, seed=5) * np.geomspace(0.1, 30, WIDTH, dtype=np.float32)
    before = run(model, x=x)
    editor = GraphEditor(model)
    editor.nodes = list(model.graph.node)
    [linear] = find_linears(editor, model.graph.node)
    ranges = ranges_of(model, x)
    seen = smooth(editor, linear, ranges["normal"])
    count = len(model.graph.node)
    after = run(editor.finish(), x=x)
    assert len(model.graph.node) - count == added
    # Sums of WIDTH products in fp32.
    assert np.abs(after - before).max() <= 1e-5 * np.abs(before).max()
    before_span, span = ranges["normal"].magnitude, seen.magnitude
    assert span.max() / span.min() < before_span.max() / before_span.min(), "it is more even"
    factor = before_span / span
    assert np.exp(np.log(factor).mean()) == pytest.approx(1, rel=1e-4)


def ranges_of(model: ModelProto, *inputs: Floats) -> Ranges:
    return read_ranges(model, [run(observing_graph(model), x=x) for x in inputs])


# -- calibration ------------------------------------------------------------------------------


def test_observed_ranges_are_those_of_numpy() -> None:
    nodes = [
        ("up", "MatMul", "x first"),
        ("active", "Tanh", "up"),
        ("sentence_embedding", "MatMul", "active narrow"),
    ]
    model = graph_of(
        nodes, {**_GAINS, "narrow": drawn(4 * WIDTH, WIDTH, seed=6)}, kind=TensorProto.FLOAT
    )
    inputs = [drawn(length, WIDTH, seed=length) for length in (1, 3, 20)]
    ranges = ranges_of(model, *inputs)
    together = np.concatenate(inputs)
    for name, rows in (("x", together), ("active", np.tanh(together @ _GAINS["first"]))):
        assert np.allclose(ranges[name].low, rows.min(axis=0), atol=1e-6), name
        assert np.allclose(ranges[name].high, rows.max(axis=0), atol=1e-6), name
    assert set(ranges) == {"x", "active"}
    assert np.array_equal(
        Range(np.array([-3, -1], np.float32), np.array([2, 4], np.float32)).magnitude, [3, 4]
    )


# -- linear layers ----------------------------------------------------------------------------


def test_layers_are_known_by_their_shapes_and_readers() -> None:
    nodes = [
        ("one", "MatMul", "x square"),
        ("two", "MatMul", "x other"),
        ("both", "Add", "one two"),
        ("up", "MatMul", "both first"),
        ("down", "MatMul", "up narrow"),
        ("again", "MatMul", "down square"),
        # Not linear: both sides are computed, or the constant is on the left.
        ("turned", "Transpose", "again"),
        ("computed", "MatMul", "again turned"),
        ("sentence_embedding", "MatMul", "left computed"),
    ]
    constants = {
        "square": drawn(WIDTH, WIDTH),
        "other": drawn(WIDTH, WIDTH),
        "first": drawn(WIDTH, 2 * WIDTH),
        "narrow": drawn(2 * WIDTH, WIDTH),
        "left": drawn(1, 1),
    }
    model = graph_of(nodes, constants, kind=TensorProto.FLOAT)
    found = find_linears(GraphEditor(model), model.graph.node)
    assert [(one.tensor, one.role) for one in found] == [
        ("x", "shared"),
        ("both", "widening"),
        ("up", "narrowing"),
        ("down", "square"),
    ]
    assert found[0].outputs == ("one", "two")
    assert found[0].weights == ("square", "other")


def test_only_what_nobody_else_reads_has_a_bias() -> None:
    nodes = [
        ("one", "MatMul", "x square"),
        ("biased", "Add", "bias one"),
        ("two", "MatMul", "biased square"),
        ("also", "Add", "two bias"),
        ("residual", "Add", "also two"),
        ("three", "MatMul", "residual square"),
        ("sentence_embedding", "Add", "three residual"),
    ]
    constants = {"square": drawn(WIDTH, WIDTH), "bias": drawn(WIDTH)}
    model = graph_of(nodes, constants, kind=TensorProto.FLOAT)
    biases = find_biases(GraphEditor(model), list(model.graph.node))
    assert {name: node.output[0] for name, node in biases.items()} == {"one": "biased"}
