"""Small surgery on ONNX graphs: add nodes, cut what is not needed, save the same bytes twice.

Knows no framework and runs nothing.
"""

from collections.abc import Iterable, MutableSequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

T = TypeVar("T")

EMBEDDING = "sentence_embedding"
HIDDEN_STATES = ("last_hidden_state", "token_embeddings")
"""What exporters call a network's last hidden state, (batch, length, features)."""

# Keeps an all-zero row finite; sentence-transformers uses the same value.
TINY = 1e-12

# protobuf ends at 2 GiB; nodes and what a recipe adds need some of it.
PROTOBUF_BYTES = 1_800_000_000

# Shape constants stay in the graph, where engines look for them while they load it.
_INLINE_BYTES = 1024
_ALIGNMENT_BYTES = 64


class GraphEditor:
    """Append nodes and constants to an ONNX model, each named after its output."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.nodes: list[NodeProto] = []
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    def constant_array(self, name: str) -> NDArray[Any] | None:
        """Return the value of a constant tensor, or None where `name` is computed."""
        tensor = self._tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Add a constant unless it is there, and return its name."""
        if name not in self._tensors:
            # Not ascontiguousarray, which makes a scalar one-dimensional.
            self._tensors[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: float) -> str:
        """Add a node of the standard operator set and return its output's name."""
        node = helper.make_node(op, inputs, [output], output)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in sorted(attributes.items()))
        self.nodes.append(node)
        return output

    def finish(self) -> ModelProto:
        """Put nodes and constants into the model, leave out what no output needs, return it."""
        graph = self.model.graph
        wanted = {output.name for output in graph.output}
        kept = []
        for node in reversed(self.nodes):
            if wanted.intersection(node.output):
                kept.append(node)
                wanted.update(_inputs(node))
        replace_items(graph.node, reversed(kept))
        self._finish_constants(wanted)
        del graph.value_info[:]
        if tensor_bytes(self.model) <= PROTOBUF_BYTES:
            # A larger one can only be checked as a file; `save` does.
            onnx.checker.check_model(self.model)
        return self.model

    def _finish_constants(self, wanted: set[str]) -> None:
        """Put constants into the graph and others out; those that stay, large ones, do not move."""
        present = self.model.graph.initializer
        added = [t for name, t in self._tensors.items() if name in wanted]
        names = {tensor.name for tensor in present}
        for place in reversed(range(len(present))):
            if present[place].name not in wanted:
                del present[place]
        present.extend(tensor for tensor in added if tensor.name not in names)


def save(
    model: ModelProto, path: Path, *, external_bytes: int = PROTOBUF_BYTES
) -> tuple[Path, ...]:
    """Write `model` without traces of where it was made; return the files: `path` comes first.

    With more than `external_bytes` of tensors they go to a second file, `path` with `.data` behind
    its name; both must then stay side by side under these names.
    """
    for node in model.graph.node:
        node.doc_string = ""
    model.doc_string = model.graph.doc_string = ""
    if tensor_bytes(model) > external_bytes:
        return _save_external(model, path)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return (path,)


def tensor_bytes(model: ModelProto) -> int:
    """Return the size of all constant tensors."""
    return sum(_size_bytes(tensor) for tensor in model.graph.initializer)


def replace_items(field: MutableSequence[T], items: Iterable[T]) -> None:
    """Put `items` in place of what a repeated field holds; they may come from the field itself."""
    kept = list(items)
    del field[:]
    field.extend(kept)


def _inputs(node: NodeProto) -> set[str]:
    """Return what a node needs; branches and loops see the values of the graph around them."""
    inner = [
        child for item in node.attribute for graph in (item.g, *item.graphs) for child in graph.node
    ]
    return {*node.input}.union(*(_inputs(child) for child in inner))


def _save_external(model: ModelProto, path: Path) -> tuple[Path, ...]:
    """Write tensors one by one beside a graph that refers to them; no second copy is in memory."""
    data_path = path.with_name(f"{path.name}.data")
    graph = model.graph
    slim = helper.make_model(
        helper.make_graph(graph.node, graph.name, graph.input, graph.output),
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
    )
    with data_path.open("wb") as file:
        for tensor in graph.initializer:
            if _size_bytes(tensor) < _INLINE_BYTES:
                slim.graph.initializer.append(tensor)
                continue
            file.write(b"\0" * (-file.tell() % _ALIGNMENT_BYTES))
            place = {"location": data_path.name, "offset": file.tell()}
            place["length"] = file.write(tensor.raw_data)
            outside = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            outside.data_location = TensorProto.EXTERNAL
            for key, value in place.items():
                outside.external_data.add(key=key, value=str(value))
            slim.graph.initializer.append(outside)
    path.write_bytes(slim.SerializeToString(deterministic=True))
    onnx.checker.check_model(str(path))
    return path, data_path


def _size_bytes(tensor: TensorProto) -> int:
    # Tensors with typed fields instead of raw bytes are small: exporters write scalars that way.
    return len(tensor.raw_data) if tensor.HasField("raw_data") else 0
