"""onnxruntime behind the engine contract: exact lengths, one thread a call, no idle spinning."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from embedserve.engine.backend import BackendOptions, EngineFacts
from embedserve.errors import ModelError
from embedserve.types import GRAPH_OUTPUTS, TokenIds, Vectors

# Larger runs are slower on CPUs: activations of more tokens leave the second cache.
RUN_TOKENS = 512

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

# Its errors share no base but Exception, and releases add some: every one that it exports. Beside
# them RuntimeError and MemoryError are what C++ errors become, ValueError is a wrong input name.
ERRORS: tuple[type[Exception], ...] = (
    *(k for k in vars(ort_errors).values() if isinstance(k, type) and issubclass(k, Exception)),
    RuntimeError,
    MemoryError,
    ValueError,
)


class OnnxRuntimeBackend:
    """One onnxruntime session; `run` is safe from any number of threads at once."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session: ort.InferenceSession | None = session

    @classmethod
    def facts(cls) -> EngineFacts:
        """Tell the version; see `Backend.facts`."""
        return EngineFacts("onnxruntime", f"onnxruntime {ort.__version__}", is_available=True)

    @classmethod
    def load(cls, onnx_path: Path, options: BackendOptions) -> Self:
        """Load a graph; see `Backend.load`."""
        provider = _provider(options)
        try:
            session = ort.InferenceSession(str(onnx_path), _session_options(), providers=[provider])
        except ERRORS as error:
            raise ModelError(f"Graph `{onnx_path}` cannot be loaded: {error}") from error
        if provider not in session.get_providers():
            raise ModelError(_missing_device(options.device))
        output = session.get_outputs()[0].name
        if output not in GRAPH_OUTPUTS:
            raise ModelError(f"Graph `{onnx_path}` gives `{output}`, no embedding. Pull it again.")
        return cls(session)

    def bucket(self, length: int) -> int:
        """Return the length itself: free lengths cost nothing here; see `Backend.bucket`."""
        return length

    def run(self, texts: Sequence[TokenIds]) -> Vectors:
        """Run texts of one length; see `Backend.run`."""
        session = self._session
        if session is None:
            raise ModelError("This is a bug: the model was closed while it was in use.")
        count = max(1, RUN_TOKENS // len(texts[0]))
        parts: list[Vectors] = []
        try:
            for first in range(0, len(texts), count):
                token_ids = np.stack(texts[first : first + count])
                feeds = {"input_ids": token_ids, "attention_mask": np.ones_like(token_ids)}
                parts.append(session.run(None, feeds)[0])
        except ERRORS as error:
            lengths = sorted({len(ids) for ids in texts})
            raise ModelError(
                f"The engine failed on {len(texts)} texts of {lengths} tokens: {error}"
            ) from error
        return np.concatenate(parts)

    def close(self) -> None:
        """Drop the session."""
        self._session = None


def _provider(options: BackendOptions) -> str:
    provider = PROVIDERS.get(options.device)
    if provider is None:
        raise ModelError(
            f"Device `{options.device}` is unknown to onnxruntime. Known: {', '.join(PROVIDERS)}."
        )
    if options.arithmetic != "f32":
        raise ModelError(
            f"onnxruntime computes in the types that the graph has and cannot turn float32 into "
            f"`{options.arithmetic}`. Pull the model again, or with `--engine openvino`."
        )
    if provider not in ort.get_available_providers():
        raise ModelError(_missing_device(options.device))
    return provider


def _session_options() -> ort.SessionOptions:
    options = ort.SessionOptions()
    # Parallelism comes from several calls at once: one thread each never spins, never waits for
    # a slower sibling, and gives the same bits whatever the load.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Memory patterns are kept for each shape; free lengths would collect hundreds of them.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _missing_device(device: str) -> str:
    try:
        version("onnxruntime-gpu")
        has_gpu_build = True
    except PackageNotFoundError:
        has_gpu_build = False
    cause = (
        "its CUDA libraries cannot be loaded, or `onnxruntime` was installed over `onnxruntime-gpu`"
        if has_gpu_build
        else "onnxruntime-gpu is not installed"
    )
    return (
        f"Device `{device}` is not available to onnxruntime: {cause}. "
        "Run `scripts/install --gpu` (docs/operations.md, GPU) or set EMBEDSERVE_DEVICE=cpu."
    )
