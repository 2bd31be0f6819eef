"""The contract of an engine, and the table of engines. Tokenizes nothing and schedules nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from embedserve.registry import Registry
from embedserve.types import Arithmetic, TokenIds, Vectors


@dataclass(frozen=True)
class BackendOptions:
    """How a graph is to be run."""

    device: str
    """`cpu`, `cuda` or `tensorrt`."""
    threads: int
    """How many callers `run` at once."""
    arithmetic: Arithmetic
    """See `EncoderSpec.arithmetic`."""
    pad_token_id: int
    """What stands behind a text that is shorter than its bucket."""
    max_tokens: int
    """The longest text, and the last position that the graph knows."""
    dynamic_group: int = 0
    """See `EncoderSpec.dynamic_group`."""
    run_threads: int = 1
    """How many threads each run takes."""


@dataclass(frozen=True)
class EngineFacts:
    """Whether an engine can be used here."""

    name: str
    version: str
    """Such as `onnxruntime 1.31.1`; empty when it is not installed."""
    is_available: bool
    why_not: str = ""
    """What to do about it, for the user; empty when it is available."""


class Backend(Protocol):
    """One loaded graph that many threads may run at once."""

    def bucket(self, length: int) -> int:
        """Return at which length a text of `length` tokens runs.

        Texts of one bucket may share a run. Raises ModelError for a text that is too long.
        """
        ...

    def fixed_texts(self, bucket: int) -> int | None:
        """Return how many texts every run of a bucket has, spare ones included.

        Such a run costs the same however few of them are real, so batches are made to fill it.
        None: a run is as large as its batch.
        """
        ...

    def run(self, texts: Sequence[TokenIds], *, is_alone: bool = False) -> Vectors:
        """Turn texts of one bucket into (len(texts), dim) float32 vectors.

        A row depends on its own text alone, to the last bit, whatever stands beside it and whether
        anything else runs. `is_alone` says that nothing does, so that all cores are free; what
        was loaded once has no use for that. Raises ModelError.
        """
        ...

    def close(self) -> None:
        """Free what the graph holds; `run` raises ModelError afterwards."""
        ...


class Engine(Backend, Protocol):
    """A backend that is made of a file."""

    @classmethod
    def facts(cls) -> EngineFacts:
        """Tell version and presence of the engine without loading it."""
        ...

    @classmethod
    def load(cls, onnx_path: Path, options: BackendOptions) -> Self:
        """Load the graph; raise ModelError when it cannot be run as the options ask."""
        ...


BACKENDS: Registry[type[Engine]] = Registry(
    "engine",
    {
        "onnxruntime": "embedserve.engine.onnxruntime_backend:OnnxRuntimeBackend",
        "openvino": "embedserve.engine.openvino_backend:OpenVinoBackend",
    },
)


def describe(name: str) -> EngineFacts:
    """Tell whether an engine can be used here; raise StartupError for a name nobody knows."""
    return BACKENDS.load(name).facts()
