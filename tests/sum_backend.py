"""A backend that adds its ids up: small, real, and slow or broken as a test asks."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np

from embedserve.engine.backend import BackendOptions, EngineFacts
from embedserve.engine.scheduler import Scheduler
from embedserve.errors import ModelError
from embedserve.types import BatchTokens, TokenIds, Vectors

DIMENSIONS = 2
LONGEST = 1000


class SumBackend:
    """Give each row (sum of its ids, length); optionally wait at a gate or fail on an id.

    Texts of `bucket_tokens`, and of each multiple of it, may come together. Every run has
    `fixed_texts`, if that is given.
    """

    def __init__(
        self,
        *,
        poison: int | None = None,
        bucket_tokens: int = 1,
        fixed_texts: int | None = None,
    ) -> None:
        self.batches: list[list[TokenIds]] = []
        self.were_alone: list[bool] = []
        self.gate = threading.Event()
        self.gate.set()
        self.has_started = threading.Event()
        self._poison = poison
        self._bucket_tokens = bucket_tokens
        self._fixed_texts = fixed_texts

    @classmethod
    def facts(cls) -> EngineFacts:
        return EngineFacts("sum", "sum 1", is_available=True)

    @classmethod
    def load(cls, onnx_path: Path, options: BackendOptions) -> Self:
        return cls()

    def bucket(self, length: int) -> int:
        if length > LONGEST:
            raise ModelError("too long")
        return -(-length // self._bucket_tokens) * self._bucket_tokens

    def fixed_texts(self, bucket: int) -> int | None:
        return self._fixed_texts

    def run(self, texts: Sequence[TokenIds], *, is_alone: bool = False) -> Vectors:
        self.batches.append(list(texts))
        self.were_alone.append(is_alone)
        self.has_started.set()
        self.gate.wait(10)
        if any((ids == self._poison).any() for ids in texts):
            raise ValueError("poison")
        return np.array([[ids.sum(), len(ids)] for ids in texts], dtype=np.float32)

    def close(self) -> None:
        pass


def text(length: int, value: int = 1) -> TokenIds:
    return np.full(length, value, dtype=np.int64)


def scheduler(
    *,
    workers: int = 1,
    queue_tokens: int = 10_000,
    queue_s: float = 100,
    worker_timeout_s: float = 30,
) -> Scheduler:
    return Scheduler(
        workers=workers,
        batch_tokens=BatchTokens(16, 16),
        queue_tokens=queue_tokens,
        queue_s=queue_s,
        worker_timeout_s=worker_timeout_s,
    )
