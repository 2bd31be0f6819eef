"""The contract of an engine, and the table of engines. Tokenizes nothing and schedules nothing."""

from pathlib import Path
from typing import Protocol, Self

from embedserve.registry import Registry
from embedserve.types import TokenIds, Vectors


class Backend(Protocol):
    """One loaded graph that many threads may run at once."""

    @classmethod
    def load(cls, onnx_path: Path, *, device: str) -> Self:
        """Load the graph; raise ModelError when it or the device cannot be used."""
        ...

    def run(self, token_ids: TokenIds) -> Vectors:
        """Turn (batch, length) int64 ids, all of exactly that length, into (batch, dim) vectors.

        A row's vector depends on that row alone, to the last bit, whatever stands beside it.
        """
        ...

    def close(self) -> None:
        """Free what the graph holds; `run` must not be called afterwards."""
        ...


BACKENDS: Registry[type[Backend]] = Registry(
    "engine", {"onnxruntime": "embedserve.engine.onnxruntime_backend:OnnxRuntimeBackend"}
)
