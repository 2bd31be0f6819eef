"""Weights files of a checkpoint: which there are, their digest, their tensors as numpy arrays.

A safetensors file is 8 bytes with the length of a header, the header in JSON, then the tensors.
Read here without the package of that name, whose numpy side knows no bfloat16.
"""

import hashlib
import json
import struct
from collections.abc import Sequence
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedserve.errors import ModelError

WEIGHTS = "model.safetensors"

READY_ONNX = ("onnx/model.onnx", "model.onnx")
"""Where repositories keep the fp32 graph; files beside it are quantized or optimized variants."""
SAFETENSORS_FIRST = (WEIGHTS, *READY_ONNX)
ONNX_FIRST = (*READY_ONNX, WEIGHTS)

_DTYPES = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "BF16": np.uint16}


def ready_graph(folder: Path) -> Path | None:
    """Return the ONNX file that the checkpoint brings along, if it does."""
    paths = (folder / name for name in READY_ONNX)
    return next((path for path in paths if path.is_file()), None)


def weights_sha256(folder: Path) -> str:
    """Return the sha256 of the checkpoint's weights, 64 hex digits.

    Of `model.safetensors`; without one of the ready ONNX file and the files of its external
    tensors. Raises ModelError when there is neither.
    """
    return digest_weights(folder, weights_in(folder, f"`{folder}`"))


def weights_among(names: Sequence[str], forms: Sequence[str], place: str) -> list[str]:
    """Return the files of the first of `forms` that is there; the last of them is the form itself.

    Raises ModelError, which says that `place` has none.
    """
    main = next((form for form in forms if form in names), None)
    if main is None:
        known = " or ".join(f"`{form}`" for form in forms)
        raise ModelError(f"There is no {known} in {place}, and no other weights can be served.")
    if main == WEIGHTS:
        return [main]
    return [*sorted(name for name in names if _is_external(name, main)), main]


def weights_in(folder: Path, place: str) -> list[str]:
    """Return the weights files of a folder, as `weights_among` does: safetensors go first."""
    places = {(folder / form).parent for form in SAFETENSORS_FIRST}
    paths = [path for place in places if place.is_dir() for path in place.iterdir()]
    names = [path.relative_to(folder).as_posix() for path in paths if path.is_file()]
    return weights_among(names, SAFETENSORS_FIRST, place)


def digest_weights(folder: Path, names: Sequence[str]) -> str:
    """Return the sha256 over the files that `weights_among` gave: the form itself, then others."""
    *external, main = names
    digest = hashlib.sha256()
    for name in (main, *external):
        with (folder / name).open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def count_parameters(folder: Path, *, leave_out: tuple[str, ...]) -> int:
    """Add up the elements of all tensors whose name holds none of `leave_out`.

    With nothing but a ready ONNX file this is its size over four bytes: the nodes count too, which
    is less than a hundredth for any model of use.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        names = weights_in(folder, f"`{folder}`")
        return sum((folder / name).stat().st_size for name in names) // 4
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


def _is_external(name: str, graph: str) -> bool:
    """Return whether `name` holds tensors of the ONNX file `graph`, judged by its name.

    Exporters write `model.onnx_data`, `model.onnx.data`, or one file for each tensor under the
    tensor's name, which has no suffix.
    """
    path, beside = PurePosixPath(name), PurePosixPath(graph)
    if path.parent != beside.parent or path == beside:
        return False
    if path.name.startswith((f"{beside.name}_", f"{beside.name}.")):
        return True
    return "onnx" in beside.parts and not path.suffix and not path.name.startswith(".")


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
