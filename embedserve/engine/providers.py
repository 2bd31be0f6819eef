"""What onnxruntime is told for each device: one table. Imports and runs nothing of it.

Nothing here was measured on a GPU (docs/operations.md, GPU).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from embedserve.engine.backend import BackendOptions
from embedserve.engine.buckets import next_bucket
from embedserve.types import Arithmetic

AUTO = "auto"
AUTO_ORDER = ("cuda", "cpu")
"""What `auto` tries. TensorRT builds engines for minutes, so it is only used when named."""

ENGINE_FOLDER = "tensorrt"
"""Beside the graph. TensorRT's cache tells graphs by their structure and not by their weights, so
that models of one architecture would get each other's engines in a folder that they shared."""


@dataclass(frozen=True)
class Device:
    """How graphs run on one kind of device."""

    providers: tuple[str, ...]
    """onnxruntime's names; the first gets what it can, the next what is left."""
    memory: Literal["cpu", "cuda"]
    """Where outputs are made."""
    run_tokens: int
    """Tokens of one run at most (a longer text runs alone)."""
    arithmetics: tuple[Arithmetic, ...] = ("f32",)
    """What it can turn the graph's float32 operations into."""
    is_padded: bool = True
    """Whether texts are padded to their bucket, and batches to a fixed number of rows."""
    has_one_batch_size: bool = False
    """Whether that number is the same for all buckets."""

    def rows(self, bucket: int, max_tokens: int) -> int:
        """Return how many texts of a bucket make one run."""
        length = max_tokens if self.has_one_batch_size else bucket
        return max(1, self.run_tokens // length)


DEVICES = {
    # Larger runs are slower on CPUs: activations of more tokens leave the second cache.
    "cpu": Device(("CPUExecutionProvider",), "cpu", run_tokens=512, is_padded=False),
    # A GPU's libraries choose the kernel by the shape, and another kernel adds up in another order:
    # for the same bits in any company, all runs of a bucket have one shape, spare rows included.
    # A single query pays for all of them, so runs are not larger than they must be: 4,096 tokens
    # of a base model are 0.7 TFLOP, milliseconds on a GPU and enough to fill it.
    "cuda": Device(("CUDAExecutionProvider",), "cuda", run_tokens=4096),
    # onnxruntime uses the first of TensorRT's optimization profiles only, so one range of shapes
    # has to cover all, with memory set aside for the largest: the number of rows is fixed, the
    # length is not.
    "tensorrt": Device(
        ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
        "cuda",
        run_tokens=16_384,
        arithmetics=("f32", "f16"),
        has_one_batch_size=True,
    ),
}

# CUDA's words, and those of onnxruntime's own allocator for it.
_NO_MEMORY = re.compile(
    "out of memory|memory ?allocation|failed to allocate memory|smaller than requested bytes", re.I
)

_CUDA = {
    # Which GPU that is, CUDA_VISIBLE_DEVICES says.
    "device_id": "0",
    # By default the arena doubles: up to twice what is needed is taken from other programs.
    "arena_extend_strategy": "kSameAsRequested",
    # On by default, and float32 products then have ten bits of mantissa: fp32 is the reference.
    "use_tf32": "0",
}


def provider_options(
    device: Device, onnx_path: Path, options: BackendOptions
) -> list[tuple[str, dict[str, str]]]:
    """Return onnxruntime's providers for a graph, each with its own options."""
    table = {
        "CPUExecutionProvider": {},
        "CUDAExecutionProvider": _CUDA,
        "TensorrtExecutionProvider": _tensorrt(device, onnx_path, options),
    }
    return [(name, table[name]) for name in device.providers]


def memory_hint(device: Device, message: str) -> str:
    """Return what to do about an error of a GPU without memory; empty for any other."""
    if device.memory == "cpu" or not _NO_MEMORY.search(message):
        return ""
    return (
        " The GPU's memory is full: set EMBEDSERVE_THREADS=1 (each thread needs room for a run of "
        "its own), use fewer models, or end what else runs on that GPU."
    )


def _tensorrt(device: Device, onnx_path: Path, options: BackendOptions) -> dict[str, str]:
    folder = str(onnx_path.parent / ENGINE_FOLDER)
    longest = options.max_tokens
    rows = device.rows(longest, longest)
    return {
        "device_id": "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
        "trt_fp16_enable": "1" if options.arithmetic == "f16" else "0",
        # Sums of squares leave fp16's range.
        "trt_layer_norm_fp32_fallback": "1",
        "trt_profile_min_shapes": _shapes(rows, next_bucket(1, longest)),
        # The length that kernels are tuned for: that of a passage.
        "trt_profile_opt_shapes": _shapes(rows, next_bucket(min(256, longest), longest)),
        "trt_profile_max_shapes": _shapes(rows, longest),
    }


def _shapes(rows: int, length: int) -> str:
    return ",".join(f"{name}:{rows}x{length}" for name in ("input_ids", "attention_mask"))
