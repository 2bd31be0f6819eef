"""optimum's dynamic int8 in onnxruntime the way people run it: not through this project's engine.

Batches are padded to their longest text, as sentence-transformers does after sorting by length.
`Rival` is a process of its own that holds one session.
"""

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedserve.engine.tokenizer import ModelTokenizer
from embedserve.models.fidelity import reference_texts
from embedserve.services import workbench
from embedserve.services.memory import resident_bytes
from embedserve.types import TokenIds, Vectors


@dataclass(frozen=True)
class Way:
    """How texts meet the session."""

    batch: int
    """Texts that are padded to the longest of them; 1: none is padded."""
    workers: int
    """Batches at once."""
    threads: int
    """Of onnxruntime within each."""


@dataclass(frozen=True)
class Files:
    """A graph with its tokenizer."""

    graph: Path
    tokenizer: Path
    max_tokens: int
    pad_token_id: int


class Session:
    """A graph in onnxruntime as it comes, but for the number of its threads."""

    def __init__(self, files: Files, way: Way) -> None:
        # Only the process that measures needs it.
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = way.threads
        options.log_severity_level = 3
        # Its threads spin while it works, as they do by default, but not into others' turns.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self._session = onnxruntime.InferenceSession(
            str(files.graph), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {node.name for node in self._session.get_inputs()}
        self._tokenizer = ModelTokenizer(files.tokenizer)
        self._files, self._way = files, way
        self._workers = ThreadPoolExecutor(way.workers)
        self._random = np.random.default_rng(0)
        self._tokens = np.concatenate(self._tokenize(reference_texts()))

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Embed texts, (texts, dimensions) float32."""
        return self._embed(self._tokenize(texts))

    def speed(self, of: str, seconds: float, times: int) -> float:
        """Return tokens per second over about that time, of the workbench's texts.

        Batches of sorted texts differ in length: over several times as many texts no worker waits
        long for another's last batch.
        """
        lengths = [min(length, self._files.max_tokens) for length in workbench._ROUNDS[of]]
        texts = [self._random.choice(self._tokens, length) for length in lengths * times]
        tokens = sum(len(text) for text in texts)
        self._embed(texts)
        started, rounds = time.perf_counter(), 0
        while (passed := time.perf_counter() - started) < seconds or not rounds:
            self._embed(texts)
            rounds += 1
        passed = time.perf_counter() - started
        return rounds * tokens / passed

    def _tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        return [self._tokenizer.tokenize(text, self._files.max_tokens).ids for text in texts]

    def _embed(self, texts: Sequence[TokenIds]) -> Vectors:
        order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
        size = self._way.batch
        batches = [order[first : first + size] for first in range(0, len(order), size)]
        rows = list(self._workers.map(lambda batch: self._run([texts[n] for n in batch]), batches))
        vectors = np.empty((len(texts), rows[0].shape[1]), np.float32)
        vectors[order] = np.concatenate(rows)
        return vectors

    def _run(self, texts: Sequence[TokenIds]) -> Vectors:
        shape = (len(texts), max(len(text) for text in texts))
        ids = np.full(shape, self._files.pad_token_id, np.int64)
        mask = np.zeros(shape, np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)], mask[row, : len(text)] = text, 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        given = {name: array for name, array in feeds.items() if name in self._inputs}
        vectors: Vectors = self._session.run(["sentence_embedding"], given)[0]
        return vectors


class Rival:
    """One session in a process of its own."""

    def __init__(self, files: Files, way: Way, times: int = 1) -> None:
        self._times = times
        self._process = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_load, initargs=(files, way)
        )

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See `Session.encode`."""
        vectors: Vectors = self._process.submit(_call, "encode", texts).result()
        return vectors

    def speed(self, of: str, seconds: float) -> float:
        """See `Session.speed`."""
        speed: float = self._process.submit(_call, "speed", of, seconds, self._times).result()
        return speed

    def resident_bytes(self) -> int:
        """Return what the process holds now."""
        return self._process.submit(resident_bytes).result()

    def close(self) -> None:
        """End the process."""
        self._process.shutdown()


_loaded: dict[str, Session] = {}


def _load(files: Files, way: Way) -> None:
    _loaded["session"] = Session(files, way)


def _call(name: str, *arguments: object) -> Any:  # noqa: ANN401  # what the method returns
    return getattr(_loaded["session"], name)(*arguments)
