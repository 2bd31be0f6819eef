"""onnxruntime behind the engine contract: exact lengths, one thread a call, no idle spinning."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from embedserve.errors import ModelError
from embedserve.types import TokenIds, Vectors

OUTPUT = "sentence_embedding"
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
        self._inputs = {node.name for node in session.get_inputs()}

    @classmethod
    def load(cls, onnx_path: Path, *, device: str) -> Self:
        """Load a graph; see `Backend.load`."""
        provider = PROVIDERS[device]
        if provider not in ort.get_available_providers():
            raise ModelError(_missing_device(device))
        try:
            session = ort.InferenceSession(str(onnx_path), _options(), providers=[provider])
        except ERRORS as error:
            raise ModelError(f"Graph `{onnx_path}` cannot be loaded: {error}") from error
        if provider not in session.get_providers():
            raise ModelError(_missing_device(device))
        return cls(session)

    def run(self, token_ids: TokenIds) -> Vectors:
        """Run one micro-batch; see `Backend.run`."""
        if self._session is None:
            raise ModelError("This is a bug: the model was closed while it was in use.")
        feeds = {"input_ids": token_ids, "attention_mask": np.ones_like(token_ids)}
        if "token_type_ids" in self._inputs:
            feeds["token_type_ids"] = np.zeros_like(token_ids)
        try:
            rows: Vectors = self._session.run([OUTPUT], feeds)[0]
        except ERRORS as error:
            raise ModelError(
                f"The engine failed on a batch of {token_ids.shape}: {error}"
            ) from error
        return rows

    def close(self) -> None:
        """Drop the session."""
        self._session = None


def _options() -> ort.SessionOptions:
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
