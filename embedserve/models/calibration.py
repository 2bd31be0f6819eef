"""Between which values each linear layer's input lies, seen over texts of many kinds.

The graph that observes is itself a graph with one output row, so any engine can run it; nothing is
run here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from embedserve.models.graph import EMBEDDING, GraphEditor
from embedserve.models.linear import Linear, constant, find_linears
from embedserve.types import Vectors

# Single lines are short; the same lines joined show the graph long texts too.
_LINES_JOINED = (1, 3, 6, 12)


@dataclass(frozen=True)
class Range:
    """Least and greatest value of each feature of one tensor, both (features,) float32."""

    low: NDArray[np.float32]
    high: NDArray[np.float32]

    @property
    def magnitude(self) -> NDArray[np.float32]:
        """Greatest distance from zero of each feature, (features,) float32."""
        return np.maximum(np.abs(self.low), np.abs(self.high))


Ranges = Mapping[str, Range]
"""By name of the tensor."""


def calibration_texts() -> list[str]:
    """Return texts of many kinds and lengths; none of them is a reference text of `fidelity`."""
    lines = _lines()
    return [
        " ".join(lines[first : first + count])
        for count in _LINES_JOINED
        for first in range(0, len(lines), count)
    ]


def calibration_pairs() -> list[tuple[str, str]]:
    """Return the same texts, each behind one of the shortest lines: what a reranker reads."""
    texts = calibration_texts()
    queries = sorted(_lines(), key=len)[: len(texts) // 6]
    return [(queries[place % len(queries)], text) for place, text in enumerate(texts)]


def observing_graph(model: ModelProto) -> ModelProto:
    """Return a graph whose output row lists the ranges of every linear layer's input.

    `sentence_embedding` becomes (1, 2 * all features) float32, for a batch of one text. Read it
    with `read_ranges`.
    """
    observer = ModelProto()
    observer.CopyFrom(model)
    editor = GraphEditor(observer)
    editor.nodes = list(observer.graph.node)
    axis = editor.constant("observe_axis", np.array([1]))
    rows, width = [], 0
    for linear in find_linears(editor, editor.nodes):
        features = _features(editor, linear)
        # Some graphs lay the tokens of a batch out in one axis: bring all to (1, tokens, features).
        shape = editor.constant(f"observe_shape_{features}", np.array([1, -1, features]))
        flat = editor.node("Reshape", [linear.tensor, shape], f"{linear.tensor}_flat")
        for op in ("ReduceMin", "ReduceMax"):
            rows.append(editor.node(op, [flat, axis], f"{linear.tensor}_{op}", keepdims=0))
        width += 2 * features
    for node in editor.nodes:
        if EMBEDDING in node.output:
            node.output[list(node.output).index(EMBEDDING)] = "embedding_not_observed"
    editor.node("Concat", rows, EMBEDDING, axis=1)
    del observer.graph.output[:]
    output = helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, [1, width])
    observer.graph.output.append(output)
    return editor.finish()


def read_ranges(model: ModelProto, rows: Sequence[Vectors]) -> dict[str, Range]:
    """Merge what `observing_graph(model)` gave for each text, (1, n) float32 each."""
    seen = np.concatenate(rows)
    low, high = seen.min(axis=0), seen.max(axis=0)
    editor = GraphEditor(model)
    ranges, start = {}, 0
    for linear in find_linears(editor, model.graph.node):
        features = _features(editor, linear)
        middle, end = start + features, start + 2 * features
        ranges[linear.tensor] = Range(low[start:middle], high[middle:end])
        start = end
    return ranges


def _features(editor: GraphEditor, linear: Linear) -> int:
    return int(constant(editor, linear.weights[0]).shape[0])


def _lines() -> list[str]:
    content = files("embedserve.models").joinpath("calibration_texts.txt").read_text("utf-8")
    return [line for line in content.splitlines() if line]
