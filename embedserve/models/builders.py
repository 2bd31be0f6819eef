"""The builders of the recipes by name; see `recipes`, which says when each is used.

Works on files, so that who builds needs to know nothing of graphs.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto

from embedserve.models.blockwise import quantize_blocks
from embedserve.models.calibration import Range, Ranges, observing_graph, read_ranges
from embedserve.models.graph import save
from embedserve.models.halves import compute_halves, store_halves
from embedserve.models.keys import split_key_transposes
from embedserve.models.recipes import Way
from embedserve.models.rowwise import quantize_rows
from embedserve.models.static import ALL_ROLES, quantize_static
from embedserve.types import Vectors

Build = Callable[[ModelProto, Ranges, int], ModelProto]
"""Fp32 graph, ranges of its activations, greatest weight code -> graph of the artefact."""


def _without_ranges(build: Callable[[ModelProto], ModelProto]) -> Build:
    return lambda model, ranges, weight_limit: build(model)


# `dynamic` is not here: optimum's own quantizer makes it, in `models/export.py`.
BUILDERS: Mapping[str, Build] = {
    "static": partial(quantize_static, dynamic_roles=frozenset()),
    "static but narrowing": partial(quantize_static, dynamic_roles=frozenset({"narrowing"})),
    "weights": partial(quantize_static, dynamic_roles=ALL_ROLES),
    "rows": quantize_rows,
    "blocks of 8 bits": _without_ranges(partial(quantize_blocks, bits=8)),
    "blocks of 4 bits": _without_ranges(partial(quantize_blocks, bits=4)),
    "halves": _without_ranges(store_halves),
    "halves throughout": _without_ranges(compute_halves),
    "float32": _without_ranges(lambda model: model),
}


def build_artefact(
    reference: Path, output: Path, way: Way, *, weight_limit: int, ranges: Path | None
) -> None:
    """Write the graph that `way` makes of the fp32 graph `reference`."""
    if way.builder == "dynamic":
        # Imported here: it needs the exporting stack, which nothing else does.
        from embedserve.models.export import quantize_dynamic

        quantize_dynamic(reference, output)
        return
    seen = _load_ranges(ranges) if way.needs_ranges and ranges else {}
    artefact = BUILDERS[way.builder](onnx.load(reference), seen, weight_limit)
    if way.engine == "openvino" and way.builder != "float32":  # which is the graph as it is
        split_key_transposes(artefact)
    save(artefact, output)


def build_observer(reference: Path, output: Path) -> None:
    """Write a graph that observes the ranges of `reference`; see `calibration`."""
    save(observing_graph(onnx.load(reference)), output)


def save_ranges(reference: Path, rows: Sequence[Vectors], output: Path) -> None:
    """Write the ranges that the observer of `reference` gave, one row for each text."""
    ranges = read_ranges(onnx.load(reference), rows)
    arrays: dict[str, Any] = {}
    for name, seen in ranges.items():
        arrays[f"{name}|low"], arrays[f"{name}|high"] = seen.low, seen.high
    np.savez(output, **arrays)


def _load_ranges(path: Path) -> dict[str, Range]:
    with np.load(path) as file:
        names = {key.rpartition("|")[0] for key in file.files}
        return {name: Range(file[f"{name}|low"], file[f"{name}|high"]) for name in names}
