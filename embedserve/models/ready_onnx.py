"""Takes a graph that a checkpoint brings along: judges it, and lifts it to our operator set.

Nothing is run, and no training stack is needed.
"""

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper, version_converter

from embedserve.errors import ModelError
from embedserve.models.graph import replace_items

# Graphs may ask for these and nothing else: the engine has nothing else to give.
_REQUIRED = frozenset({"input_ids", "attention_mask"})
_ALLOWED = _REQUIRED | {"token_type_ids"}

# Tensors above this are weights; no operator's shape depends on them.
_WEIGHT_BYTES = 4096
# Initializers need not be inputs from 4 on; the operator sets we use are 8 and later.
_IR_VERSION = 8

_WAY_OUT = "Pull it with `--ignore-onnx` to export it from its weights."


def load_ready(path: Path, *, opset: int) -> ModelProto:
    """Load the fp32 graph `path` with operator set `opset` or later.

    Tensors in files beside it become part of it. Raises ModelError for one that is quantized, half
    precision, of fixed shape, made of operators outside of ONNX, that takes other inputs than ours,
    or that cannot be lifted to `opset`.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # narrower is not possible: protobuf's error has no public name
        raise ModelError(f"Graph `{path}` cannot be read: {error}. Fetch it again.") from error
    for tensor in _tensors(model.graph):
        if tensor.data_location == TensorProto.EXTERNAL:
            _fetch_in(path, tensor)
    _judge_tensors(path, model)
    _judge_inputs(path, model)
    model.ir_version = max(model.ir_version, _IR_VERSION)
    version = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    return model if version >= opset else _lift(path, model, opset)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Yield every constant of a graph and of the branches in it."""
    yield from graph.initializer
    for attribute in (item for node in graph.node for item in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)


def _fetch_in(path: Path, tensor: TensorProto) -> None:
    """Read a tensor from its file beside the graph `path`.

    Not onnx's own reader, which takes neither symlinks nor files with several names: a hub cache
    has nothing else. Those may be followed, as only a plain name in the graph's folder is taken.
    """
    place = {item.key: item.value for item in tensor.external_data}
    name = place.get("location", "")
    if name in ("", "..") or Path(name).name != name or "\\" in name:
        raise ModelError(
            f"Graph `{path}` keeps tensor `{tensor.name}` in `{name}`; only files beside the graph "
            f"are read. {_WAY_OUT}"
        )
    try:
        offset = int(place.get("offset", 0))
        with (path.parent / name).open("rb") as file:
            end = file.seek(0, 2)
            length = int(place.get("length", end - offset))
            if min(offset, length) < 0 or offset + length > end:
                raise ValueError(f"it has {end} bytes, {offset} + {length} are needed")
            file.seek(offset)
            tensor.raw_data = file.read(length)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"Tensor `{tensor.name}` of graph `{path}` cannot be read from `{name}`: {error}. "
            "Fetch it again."
        ) from error
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def _judge_tensors(path: Path, model: ModelProto) -> None:
    foreign = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if foreign:
        raise ModelError(f"Graph `{path}` has operators of {', '.join(foreign)}. {_WAY_OUT}")
    types = {tensor.data_type for tensor in model.graph.initializer}
    if types & {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT8, TensorProto.UINT8}:
        raise ModelError(
            f"Graph `{path}` is quantized or in half precision; a full-precision one is needed to "
            f"measure against. {_WAY_OUT}"
        )


def _judge_inputs(path: Path, model: ModelProto) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in constants]
    replace_items(model.graph.input, inputs)
    names = {item.name for item in inputs}
    if not _REQUIRED <= names <= _ALLOWED:
        raise ModelError(
            f"Graph `{path}` takes {', '.join(sorted(names))}; only {', '.join(sorted(_ALLOWED))} "
            f"can be given. {_WAY_OUT}"
        )
    for item in inputs:
        tensor = item.type.tensor_type
        is_free = [not dimension.HasField("dim_value") for dimension in tensor.shape.dim]
        if tensor.elem_type != TensorProto.INT64 or is_free != [True, True]:
            raise ModelError(
                f"Graph `{path}` takes `{item.name}` in a fixed shape or not as int64. {_WAY_OUT}"
            )


def _lift(path: Path, model: ModelProto, opset: int) -> ModelProto:
    """Convert to `opset`. Weights wait outside: the converter takes what fits into protobuf."""
    graph = model.graph
    weights = [t for t in graph.initializer if len(t.raw_data) > _WEIGHT_BYTES]
    names = {tensor.name for tensor in weights}
    inputs = list(graph.input)
    stand_ins = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in weights]
    replace_items(graph.initializer, [t for t in graph.initializer if t.name not in names])
    replace_items(graph.input, [*inputs, *stand_ins])
    del graph.value_info[:]
    try:
        lifted = version_converter.convert_version(model, opset)
        onnx.checker.check_model(lifted)
    except Exception as error:  # narrower is not possible: C++ raises RuntimeError and others
        raise ModelError(
            f"Graph `{path}` cannot be lifted to operator set {opset}: {error}. {_WAY_OUT}"
        ) from error
    replace_items(lifted.graph.input, [i for i in lifted.graph.input if i.name not in names])
    lifted.graph.initializer.extend(weights)
    return lifted
