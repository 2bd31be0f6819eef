"""onnxruntime behind the engine contract: one thread a call, no idle spinning.

On the CPU texts of one exact length run together. On GPUs all runs of a bucket have one shape,
inputs and output are bound, and only pooled vectors come back. What onnxruntime is told for each
device stands in `providers.py`.
"""

from collections import deque
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from embedserve.engine.backend import BackendOptions, EngineFacts
from embedserve.engine.buckets import fill, next_bucket
from embedserve.engine.providers import DEVICES, Device, memory_hint, provider_options
from embedserve.errors import ModelError
from embedserve.types import GRAPH_OUTPUTS, TokenIds, Vectors

CLOSED = "This is a bug: the model was closed while it was in use."

# A whole ONNX file: y = Identity(x), one float each. What a device cannot run, it cannot run.
SMALLEST_GRAPH = bytes.fromhex(
    "080912003a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a02080162"
    "0f0a0179120a0a08080112040a02080142040a001012"
)

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

    def __init__(
        self, session: ort.InferenceSession, device: Device, options: BackendOptions
    ) -> None:
        self._session: ort.InferenceSession | None = session
        self._device = device
        self._options = options
        self._idle: deque[_Binding] = deque()

    @classmethod
    def facts(cls) -> EngineFacts:
        """Tell the version; see `Engine.facts`."""
        return EngineFacts("onnxruntime", f"onnxruntime {ort.__version__}", is_available=True)

    @classmethod
    def load(cls, onnx_path: Path, options: BackendOptions) -> Self:
        """Load a graph; see `Engine.load`."""
        device = DEVICES.get(options.device)
        if device is None:
            raise ModelError(_unknown_device(options.device))
        return cls.load_on(device, onnx_path, options)

    @classmethod
    def load_on(cls, device: Device, onnx_path: Path, options: BackendOptions) -> Self:
        """Load a graph for a device, whatever its name is; raise ModelError."""
        if options.arithmetic not in device.arithmetics:
            raise ModelError(
                f"onnxruntime computes in the types that the graph has and cannot turn float32 "
                f"into `{options.arithmetic}` on device `{options.device}`. Pull the model again, "
                "or with `--engine openvino`."
            )
        if not set(device.providers) <= set(ort.get_available_providers()):
            raise ModelError(_missing_device(options.device))
        providers = provider_options(device, onnx_path, options)
        try:
            session = _session(str(onnx_path), providers, threads=options.run_threads)
        except ERRORS as error:
            hint = memory_hint(device, str(error))
            raise ModelError(f"Graph `{onnx_path}` cannot be loaded: {error}{hint}") from error
        if not set(device.providers) <= set(session.get_providers()):
            raise ModelError(_missing_device(options.device))
        output = session.get_outputs()[0].name
        if output not in GRAPH_OUTPUTS:
            raise ModelError(f"Graph `{onnx_path}` gives `{output}`, no embedding. Pull it again.")
        return cls(session, device, options)

    def bucket(self, length: int) -> int:
        """Return the length itself on CPUs, where free lengths cost nothing; see `Backend.bucket`.

        Elsewhere one of few lengths: see `buckets.next_bucket`.
        """
        return (
            next_bucket(length, self._options.max_tokens)
            if self._device.is_padded
            else max(1, length)
        )

    def fixed_texts(self, bucket: int) -> int | None:
        """Return None on CPUs, and the rows of a shape elsewhere; see `Backend.fixed_texts`."""
        device = self._device
        return device.rows(bucket, self._options.max_tokens) if device.is_padded else None

    def run(self, texts: Sequence[TokenIds], *, is_alone: bool = False) -> Vectors:
        """Run texts of one bucket; see `Backend.run`."""
        session = self._session
        if session is None:
            raise ModelError(CLOSED)
        bucket = self.bucket(len(texts[0]))
        count = self._device.rows(bucket, self._options.max_tokens)
        parts = [texts[first : first + count] for first in range(0, len(texts), count)]
        try:
            if self._device.is_padded:
                rows = self._run_padded(session, parts, (count, bucket))
            else:
                rows = [_run_exact(session, part) for part in parts]
        except ERRORS as error:
            lengths = sorted({len(ids) for ids in texts})
            raise ModelError(
                f"The engine failed on {len(texts)} texts of {lengths} tokens: {error}"
                f"{memory_hint(self._device, str(error))}"
            ) from error
        return np.concatenate(rows)

    def close(self) -> None:
        """Drop the session."""
        self._session = None
        self._idle.clear()

    def _run_padded(
        self,
        session: ort.InferenceSession,
        parts: list[Sequence[TokenIds]],
        shape: tuple[int, int],
    ) -> list[Vectors]:
        """Run each part in an array of that shape."""
        try:
            binding = self._idle.pop()
        except IndexError:  # more callers at once than ever before
            binding = _Binding(session, self._device)
        rows = []
        for texts in parts:
            if any(self.bucket(len(ids)) != shape[1] for ids in texts):
                raise ModelError("This is a bug: texts of different buckets came together.")
            ids, mask = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.int64)
            fill(ids, mask, texts, self._options.pad_token_id)
            # Spare rows are a text like others: one of padding alone would divide by zero.
            ids[len(texts) :], mask[len(texts) :] = ids[0], mask[0]
            rows.append(binding.infer(ids, mask)[: len(texts)])
        # Only now: one that failed is not used again.
        self._idle.append(binding)
        if self._session is None:
            self._idle.clear()  # closed meanwhile
        return rows


class _Binding:
    """One caller's inputs and output on a device."""

    def __init__(self, session: ort.InferenceSession, device: Device) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._output = session.get_outputs()[0].name
        self._memory = device.memory

    def infer(self, ids: TokenIds, mask: TokenIds) -> Vectors:
        """Run one (batch, length) array of ids with its mask; return rows of their own memory."""
        binding = self._binding
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", mask)
        # Anew for each run, which would else be made to fit into the output of the last one.
        # Other outputs of the graph are not bound, so that they stay where they are.
        binding.bind_output(self._output, self._memory)
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        rows: Vectors = binding.copy_outputs_to_cpu()[0]
        return rows


def why_no_device(name: str) -> str:
    """Say why onnxruntime cannot use a device, after trying it; empty when it can."""
    device = DEVICES.get(name)
    if device is None:
        return _unknown_device(name)
    if not set(device.providers) <= set(ort.get_available_providers()):
        return _missing_device(name)
    try:
        session = _session(SMALLEST_GRAPH, [(provider, {}) for provider in device.providers])
    except ERRORS as error:
        return f"Device `{name}` does not work: {error}"
    is_used = set(device.providers) <= set(session.get_providers())
    return "" if is_used else _missing_device(name)


def _run_exact(session: ort.InferenceSession, texts: Sequence[TokenIds]) -> Vectors:
    """Run texts of one length, as they are."""
    token_ids = np.stack(texts)
    feeds = {"input_ids": token_ids, "attention_mask": np.ones_like(token_ids)}
    rows: Vectors = session.run(None, feeds)[0]
    return rows


def _session(
    graph: str | bytes, providers: list[tuple[str, dict[str, str]]], *, threads: int = 1
) -> ort.InferenceSession:
    # By default a session that a GPU cannot hold, or that fails there in a run, is made again for
    # the CPU, with no more than a line on stdout.
    options = _session_options(threads)
    return ort.InferenceSession(graph, options, providers=providers, enable_fallback=0)


def _session_options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    # Parallelism comes from several calls at once: one thread each never spins, never waits for
    # a slower sibling, and gives the same bits whatever the load.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    # Memory patterns are kept for each shape; free lengths would collect hundreds of them.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _unknown_device(name: str) -> str:
    return f"Device `{name}` is unknown to onnxruntime. Known: {', '.join(DEVICES)}."


def _missing_device(name: str) -> str:
    try:
        version("onnxruntime-gpu")
        has_gpu_build = True
    except PackageNotFoundError:
        has_gpu_build = False
    libraries = "CUDA and TensorRT" if name == "tensorrt" else "CUDA"
    cause = (
        f"the {libraries} libraries cannot be loaded (the log names the one that is missing), or "
        "`onnxruntime` was installed over `onnxruntime-gpu`"
        if has_gpu_build
        else "onnxruntime-gpu is not installed"
    )
    return (
        f"Device `{name}` is not available to onnxruntime: {cause}. "
        "Run `scripts/install --gpu` (docs/operations.md, GPU) or set EMBEDSERVE_DEVICE=cpu."
    )
