"""OpenVINO behind the engine contract: a fixed set of shapes, one thread a call, nothing sent.

OpenVINO keeps kernels and repacked weights for each shape it has met, so that free lengths would
cost time for each new one and memory without end. Texts are padded to their own bucket instead,
and batches are cut into few sizes.

The package is imported when the first graph is loaded, never before: it may be absent.
"""

import sys
from collections import deque
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Self

import numpy as np

from embedserve.engine.backend import BackendOptions, EngineFacts
from embedserve.engine.buckets import fill, next_bucket, split
from embedserve.errors import ModelError
from embedserve.types import GRAPH_OUTPUTS, TokenIds, Vectors

if TYPE_CHECKING:
    import openvino as ov

DEVICE = "cpu"
# More tokens in one run bring no more speed. On one core 19.7 thousand tokens/s with one text of
# 128 tokens, 21.9 with two, 23.2 with four, 23.5 with eight.
RUN_TOKENS = 1024
INSTALL = "Install it (`pip install openvino`) or pull the model with `--engine onnxruntime`."
CLOSED = "This is a bug: the model was closed while it was in use."

_CAPABILITIES = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}
# What a C++ exception becomes, and what the bindings raise for arguments they do not take.
_ERRORS = (RuntimeError, ValueError, TypeError, MemoryError)
# Importing `openvino` tries to import this part of it, which reports the import to a collector
# over the network and leaves a client id in the user's home. It converts models; nothing here
# needs it.
_REPORTING_PART = "openvino.tools.ovc"
_importing = Lock()


class OpenVinoBackend:
    """One compiled graph; `run` is safe from any number of threads at once."""

    def __init__(self, compiled: "ov.CompiledModel", options: BackendOptions) -> None:
        self._compiled: ov.CompiledModel | None = compiled
        self._options = options
        self._idle: deque[_Request] = deque()

    @classmethod
    def facts(cls) -> EngineFacts:
        """Tell version and presence; see `Engine.facts`."""
        try:
            found = version("openvino")
        except PackageNotFoundError:
            why_not = f"openvino is not installed. {INSTALL}"
            return EngineFacts("openvino", "", is_available=False, why_not=why_not)
        return EngineFacts("openvino", f"openvino {found}", is_available=True)

    @classmethod
    def load(cls, onnx_path: Path, options: BackendOptions) -> Self:
        """Compile a graph; see `Engine.load`."""
        if options.device != DEVICE:
            raise ModelError(
                f"OpenVINO runs on the CPU only here, not on `{options.device}`. Set "
                "EMBEDSERVE_DEVICE=cpu or pull the model with `--engine onnxruntime`."
            )
        openvino = _import_openvino()
        try:
            core = openvino.Core()
            _check_arithmetic(core, options)
            compiled = core.compile_model(str(onnx_path), "CPU", _settings(options))
        except _ERRORS as error:
            raise ModelError(f"Graph `{onnx_path}` cannot be loaded: {_reason(error)}") from error
        names = compiled.outputs[0].names
        if not names & set(GRAPH_OUTPUTS):
            given = ", ".join(sorted(names))
            raise ModelError(f"Graph `{onnx_path}` gives `{given}`, no embedding. Pull it again.")
        backend = cls(compiled, options)
        # One run by one thread, before many come: whatever else is set up on first use is, then.
        backend.run([np.full(1, options.pad_token_id, dtype=np.int64)])
        return backend

    def bucket(self, length: int) -> int:
        """Return the next of few lengths; see `buckets.next_bucket`."""
        return next_bucket(length, self._options.max_tokens)

    def fixed_texts(self, bucket: int) -> int | None:
        """Return None; see `Backend.fixed_texts`."""
        return None

    def run(self, texts: Sequence[TokenIds], *, is_alone: bool = False) -> Vectors:
        """Run texts of one bucket, each padded to it; see `Backend.run`."""
        bucket = self.bucket(len(texts[0]))
        if any(self.bucket(len(ids)) != bucket for ids in texts):
            raise ModelError("This is a bug: texts of different buckets came together.")
        request = self._take()
        parts: list[Vectors] = []
        try:
            for part in split(texts, max(1, RUN_TOKENS // bucket)):
                parts.append(request.infer(part, bucket))
        except _ERRORS as error:
            raise ModelError(
                f"The engine failed on {len(texts)} texts of up to {bucket} tokens: "
                f"{_reason(error)}"
            ) from error
        # Only now: one that failed is not used again.
        self._idle.append(request)
        if self._compiled is None:
            self._idle.clear()  # closed meanwhile
        return np.concatenate(parts)

    def close(self) -> None:
        """Drop the compiled graph."""
        self._compiled = None
        self._idle.clear()

    def _take(self) -> "_Request":
        compiled = self._compiled
        if compiled is None:
            raise ModelError(CLOSED)
        try:
            return self._idle.pop()
        except IndexError:  # more callers at once than ever before
            return _Request(compiled, self._options.pad_token_id)


class _Request:
    """One caller's place in the engine."""

    def __init__(self, compiled: "ov.CompiledModel", pad_token_id: int) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = [port.get_any_name() for port in compiled.inputs]
        self._pad_token_id = pad_token_id

    def infer(self, texts: Sequence[TokenIds], bucket: int) -> Vectors:
        """Run exactly these texts; return rows of their own memory."""
        ids, mask = self._input("input_ids"), self._input("attention_mask")
        ids.shape = mask.shape = (len(texts), bucket)
        fill(ids.data, mask.data, texts, self._pad_token_id)
        self._request.infer()
        # The engine writes its next result into the same memory.
        rows: Vectors = self._request.get_output_tensor(0).data.copy()
        return rows

    def _input(self, name: str) -> "ov.Tensor":
        # The request's own tensor: written in place, it spares the copy of arrays handed over.
        return self._request.get_input_tensor(self._inputs.index(name))


def _import_openvino() -> ModuleType:
    """Import the package without the part of it that reports; raise ModelError."""
    with _importing:
        before = sys.modules.get(_REPORTING_PART)
        sys.modules[_REPORTING_PART] = None  # type: ignore[assignment]  # "cannot be imported"
        try:
            import openvino

            # The bindings set up their numpy side on first use, with a lock of their own that they
            # hold while they wait for Python's: two threads that are first at once wait forever.
            openvino.Tensor(np.zeros(1, dtype=np.float32)).data.sum()
        except (ImportError, OSError) as error:
            raise ModelError(f"OpenVINO cannot be used: {error}. {INSTALL}") from error
        finally:
            del sys.modules[_REPORTING_PART]
            if before is not None:
                sys.modules[_REPORTING_PART] = before
    module: ModuleType = openvino
    return module


def _check_arithmetic(core: "ov.Core", options: BackendOptions) -> None:
    # OpenVINO would compute in float32 without a word.
    capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if _CAPABILITIES.get(options.arithmetic) not in capabilities:
        raise ModelError(
            f"This CPU has no `{options.arithmetic}` arithmetic, for which the model was pulled. "
            "Pull it again on this machine."
        )


def _settings(options: BackendOptions) -> dict[str, str | int]:
    return {
        "INFERENCE_PRECISION_HINT": options.arithmetic,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": options.dynamic_group,
        # Parallelism comes from several calls at once, as many as there are streams: with one
        # thread each nothing spins, and sums are added up in one order whatever the load.
        "NUM_STREAMS": options.threads,
        "INFERENCE_NUM_THREADS": options.threads * options.run_threads,
        # How many cores there are for us is counted in `cores.py`.
        "ENABLE_HYPER_THREADING": "YES",
        "ENABLE_CPU_PINNING": "NO",
        # What it worked out for each operator and shape; by default 5,000 are kept, which is less
        # than 47 shapes of a small graph have. Without any, mixed lengths run at 77% of the speed.
        "CPU_RUNTIME_CACHE_CAPACITY": 50_000,
    }


def _reason(error: Exception) -> str:
    """Leave out of a message where in its own sources the engine noticed."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("Exception from"))
