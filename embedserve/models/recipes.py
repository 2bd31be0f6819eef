"""The recipes: how an fp32 graph becomes an artefact, for which engine, and what it must keep.

A recipe is what a user names (`int8`); for each engine it may be built in several ways, tried from
the fastest on until one passes the recipe's gate. To add a recipe, add a row here and its name to
`names.RECIPES`.
"""

from dataclasses import dataclass
from typing import Literal

from embedserve.types import Arithmetic

FULL_RANGE = 127
"""Greatest code of an 8-bit weight."""
# x86 CPUs without VNNI add two products of u8 and s8 into a saturating int16:
# 2 * 255 * 64 = 32,640 still fits into 32,767, twice 255 * 127 does not.
SAFE_RANGE = 64
"""Greatest code of a weight on CPUs that add in 16 bits."""


@dataclass(frozen=True)
class Gate:
    """The least that an artefact must reach against fp32 to be installed."""

    cosine_mean: float
    cosine_min: float
    top10_overlap: float = 0.0


@dataclass(frozen=True)
class Way:
    """One way to build a recipe for one engine."""

    engine: str
    method: str
    """What is done, in words for people."""
    builder: str
    """Name in `builders.BUILDERS`; apart from here, so that serving needs none of them."""
    needs_ranges: bool = False
    arithmetic: Arithmetic = "f32"
    """Of everything that is not integer. bf16 becomes f32 on CPUs that have none."""
    dynamic_group: int = 0
    """Features of a token row that share a scale where the engine quantizes by itself; 0: none."""


@dataclass(frozen=True)
class Recipe:
    """One precision that a user can ask for."""

    name: str
    gate: Gate
    ways: tuple[Way, ...]
    """Of each engine the fastest first."""
    device: Literal["cpu", "cuda", "tensorrt", "any"] = "cpu"
    is_batch_invariant: bool = True
    note: str = ""
    """What a user has to know of it."""


# Each fixed scale of a layer's input is a gamble on outliers; the second way leaves out the layers
# whose inputs have most of them, the third all. Measured: docs/quantization.md.
_INT8 = (
    Way(
        engine="openvino",
        method="static int8, smoothed",
        builder="static",
        needs_ranges=True,
        arithmetic="bf16",
    ),
    Way(
        engine="openvino",
        method="static int8, smoothed; second half of the feed-forward dynamic by 128 features",
        builder="static but narrowing",
        needs_ranges=True,
        arithmetic="bf16",
        dynamic_group=128,
    ),
    Way(
        engine="openvino",
        method="int8 weights, inputs dynamic by 64 features",
        builder="weights",
        arithmetic="bf16",
        dynamic_group=64,
    ),
    Way(
        engine="onnxruntime",
        method="int8, one scale for each token row, smoothed",
        builder="rows",
        needs_ranges=True,
    ),
)
_PRECISE = (
    Way(
        engine="openvino",
        method="int8 weights, inputs dynamic by 32 features",
        builder="weights",
        arithmetic="bf16",
        dynamic_group=32,
    ),
    Way("onnxruntime", "8-bit weights in blocks of 64", "blocks of 8 bits"),
)
_FP32 = (
    Way("openvino", "as exported", "float32"),
    Way("onnxruntime", "as exported", "float32"),
)

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("int8", Gate(0.9985, 0.995, 0.965), _INT8),
        Recipe("int8-precise", Gate(0.9993, 0.997, 0.965), _PRECISE),
        Recipe(
            "bf16",
            Gate(0.9999, 0.9995, 0.98),
            (Way("openvino", "fp16 weights, bf16 arithmetic", "halves", arithmetic="bf16"),),
        ),
        Recipe("fp32", Gate(0.99999, 0.99999), _FP32, device="any"),
        Recipe(
            "fp16",
            Gate(0.9999, 0.9995, 0.98),
            (Way("onnxruntime", "fp16 throughout", "halves throughout"),),
            device="cuda",
        ),
        Recipe(
            "fp16-tensorrt",
            Gate(0.9999, 0.9995, 0.98),
            (Way("onnxruntime", "fp16 arithmetic by TensorRT", "float32", arithmetic="f16"),),
            device="tensorrt",
        ),
        Recipe(
            "int4",
            Gate(0.985, 0.95, 0.9),
            (Way("onnxruntime", "4-bit weights in blocks of 32", "blocks of 4 bits"),),
            note="loses much of small models; its card shows how much",
        ),
        Recipe(
            "int8-dynamic",
            Gate(0.98, 0.9),
            (Way("onnxruntime", "int8, one scale for a whole batch (optimum)", "dynamic"),),
            is_batch_invariant=False,
            note="vectors depend on the batch; kept for comparison",
        ),
    )
}

# What a pull tries when no recipe is named: the fastest of the first group that passes wins, and
# the next group is tried when none does.
DEFAULTS = {
    "cpu": (("int8", "bf16"), ("int8-precise",), ("fp32",)),
    "cuda": (("fp16",), ("fp32",)),
    "tensorrt": (("fp16-tensorrt",), ("fp32",)),
}
