"""Weights files of a checkpoint: which there are, their digest, their tensors as numpy arrays.

A safetensors file is 8 bytes with the length of a header, the header in JSON, then the tensors.
Read here without the package of that name, whose numpy side knows no bfloat16.
"""

import hashlib
import json
import struct
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedserve.errors import ModelError

WEIGHTS = "model.safetensors"

# Where a repository keeps a graph that somebody exported before, in fp32.
_READY = ("onnx/model.onnx", "model.onnx")

_DTYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "BF16": np.uint16}


def ready_graph(folder: Path) -> Path | None:
    """Return the ONNX file that the checkpoint brings along, if it does."""
    paths = (folder / name for name in _READY)
    return next((path for path in paths if path.is_file()), None)


def weights_sha256(folder: Path) -> str:
    """Return the sha256 of the checkpoint's weights, 64 hex digits.

    Of `model.safetensors`; without one of the ready ONNX file and the files of its external
    tensors. Raises ModelError when there is neither.
    """
    digest = hashlib.sha256()
    for path in _weights_files(folder):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def count_parameters(folder: Path, *, leave_out: tuple[str, ...]) -> int:
    """Add up the elements of all tensors whose name holds none of `leave_out`.

    With nothing but a ready ONNX file this is its size over four bytes: the nodes count too, which
    is less than a hundredth for any model of use.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        return sum(file.stat().st_size for file in _weights_files(folder)) // 4
    return sum(
        prod(tensor["shape"])
        for name, tensor in _header(path).items()
        if not any(part in name for part in leave_out)
    )


def read_tensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Return every tensor of a safetensors file as float32."""
    header = _header(path)
    payload = path.read_bytes()
    (length,) = struct.unpack("<Q", payload[:8])
    tensors = {}
    for name, tensor in header.items():
        if tensor["dtype"] not in _DTYPES:
            raise ModelError(f"`{path}` holds `{name}` as {tensor['dtype']}, not as floats.")
        first, last = (8 + length + offset for offset in tensor["data_offsets"])
        array = np.frombuffer(payload[first:last], dtype=_DTYPES[tensor["dtype"]])
        if tensor["dtype"] == "BF16":
            # bfloat16 is the upper half of a float32.
            array = (array.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = array.astype(np.float32).reshape(tensor["shape"])
    return tensors


def _weights_files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    graph = ready_graph(folder)
    if graph is None:
        raise ModelError(f"There is no `{WEIGHTS}` and no `{_READY[0]}` in `{folder}`.")
    # Tensors beyond protobuf's 2 GB lie beside the graph: model.onnx_data or model.onnx.data.
    return [graph, *sorted(graph.parent.glob(f"{graph.name}[_.]data"))]


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("header longer than the file")
            header: dict[str, Any] = json.loads(file.read(length))
        except (struct.error, ValueError) as error:
            raise ModelError(
                f"`{path}` is not a whole safetensors file. Fetch it again."
            ) from error
    header.pop("__metadata__", None)
    return header
