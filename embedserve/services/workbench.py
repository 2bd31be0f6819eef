"""Builds and measures one artefact, in a process of its own.

Reads one JSON object a line from standard input (`{"do": "encode", ...}`) and answers each with one
line: `{"ok": ...}` or `{"error": "..."}`. Its own process, so that its memory is the model's alone,
and so that an engine that crashes on a strange graph takes nothing with it.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from embedserve.engine.backend import BACKENDS, BackendOptions, describe
from embedserve.engine.cpu import cpu_class
from embedserve.engine.encoder import Encoder
from embedserve.engine.scheduler import Scheduler
from embedserve.engine.tokenizer import ModelTokenizer, TokenizedText
from embedserve.errors import EmbedserveError
from embedserve.models import builders, calibration
from embedserve.models.fidelity import reference_texts
from embedserve.models.recipes import RECIPES
from embedserve.services.memory import resident_bytes
from embedserve.types import BatchTokens, EncoderSpec

# Texts a round, by what is measured: enough to keep every thread busy with full micro-batches.
_ROUNDS = {"16": [16] * 64, "128": [128] * 16, "256": [256] * 8, "mixed": list(range(8, 251, 4))}
_SLOW_ROUND_SECONDS = 2.0
_INVARIANCE_LENGTHS = (2, 3, 7, 16, 33, 64, 130)
# And two texts of the model's full length, or of this one where that would take slow models long.
_LONG_TOKENS = 512
_PARENT_POLL_S = 1.0


def build(
    *, reference: str, output: str, recipe: str, way: int, weight_limit: int, ranges: str | None
) -> None:
    """Write the graph of one way of a recipe, from the fp32 graph."""
    builders.build_artefact(
        Path(reference),
        Path(output),
        RECIPES[recipe].ways[way],
        weight_limit=weight_limit,
        ranges=Path(ranges) if ranges else None,
    )


def observe(
    *, reference: str, tokenizer: str, output: str, max_tokens: int, pad_token_id: int, kind: str
) -> None:
    """Write the ranges of the fp32 graph's activations over the calibration texts, or pairs."""
    observer = Path(output).with_suffix(".onnx")
    builders.build_observer(Path(reference), observer)
    # onnxruntime runs exact lengths: padding would be observed too.
    options = BackendOptions("cpu", 1, "f32", pad_token_id, max_tokens)
    backend = BACKENDS.load("onnxruntime").load(observer, options)
    tokens = ModelTokenizer(Path(tokenizer))
    if kind == "reranker":
        given = [
            pair
            for query, text in calibration.calibration_pairs()
            for pair in tokens.tokenize_pairs(
                tokens.tokenize_query(query, max_tokens), [text], max_tokens, max_text_tokens=None
            )
        ]
    else:
        given = [tokens.tokenize(text, max_tokens) for text in calibration.calibration_texts()]
    rows = [backend.run([text.ids]) for text in given]
    builders.save_ranges(Path(reference), rows, Path(output))


class Loaded:
    """The artefact that this process measures."""

    def __init__(self, spec: dict[str, Any], device: str, threads: int) -> None:
        paths = {name: Path(spec[name]) for name in ("onnx_path", "tokenizer_path")}
        self._spec = EncoderSpec(**{**spec, **paths})
        self._threads = threads
        # Batches as a server has them that nobody configured.
        scheduler = Scheduler(workers=threads, batch_tokens=BatchTokens(), queue_tokens=10**7)
        self._encoder = Encoder(self._spec, scheduler, device=device)
        ids = [text.ids for text in self._encoder.tokenize(reference_texts())]
        self._tokens = np.concatenate(ids)
        self._random = np.random.default_rng(0)
        self._slow: dict[str, float] = {}

    def encode(self, *, texts: list[str], output: str) -> None:
        """Write the texts' vectors as a numpy file."""
        np.save(output, self._encoder.encode(texts))

    def score(self, *, queries: list[str], passages: list[str], output: str) -> None:
        """Write a reranker's scores, (queries, passages) float32, as a numpy file."""
        rows = [self._encoder.score(query, passages)[:, 0] for query in queries]
        np.save(output, np.stack(rows))

    def speed(self, *, of: str, seconds: float, times: int = 1) -> float:
        """Return tokens per second over about that time, with `times` as many texts at once.

        A model for which one round takes longer than `_SLOW_ROUND_SECONDS` is timed once only.
        """
        if of in self._slow:
            return self._slow[of]
        texts = [self._text(length) for length in _ROUNDS[of] * times]
        tokens = sum(len(text.ids) for text in texts)
        # The first round also makes the engine's kernels for these lengths.
        first = self._seconds(texts)
        if first > _SLOW_ROUND_SECONDS:
            self._slow[of] = tokens / first
            return self._slow[of]
        passed, rounds = 0.0, 0
        while passed < seconds:
            passed += self._seconds(texts)
            rounds += 1
        return rounds * tokens / passed

    def machine(self) -> dict[str, Any]:
        """Return what the figures depend on, and what the process holds now."""
        return {
            "engine_version": describe(self._spec.engine).version,
            "cpu": cpu_class(),
            "threads": self._threads,
            "resident_bytes": resident_bytes(),
        }

    def is_batch_invariant(self) -> bool:
        """Tell whether texts give the same bits alone and among others."""
        lengths = [length for length in _INVARIANCE_LENGTHS for _ in range(7)]
        texts = [self._text(length) for length in (*lengths, _LONG_TOKENS, _LONG_TOKENS)]
        together = self._encoder.submit(texts, lane="bulk").result()
        alone = [self._encoder.submit([text], lane="bulk").result()[0] for text in texts]
        return together.tobytes() == np.stack(alone).tobytes()

    def _seconds(self, texts: list[TokenizedText]) -> float:
        started = time.perf_counter()
        self._encoder.submit(texts, lane="bulk").result()
        return time.perf_counter() - started

    def _text(self, length: int) -> TokenizedText:
        length = min(length, self._spec.max_tokens)
        return TokenizedText(self._random.choice(self._tokens, length), is_truncated=False)


def _end_with_parent(parent: int) -> None:
    """End this process soon after the one that started it, whatever it is busy with.

    Standard input tells that too, but is looked at only between two requests.
    """
    while os.getppid() == parent:
        time.sleep(_PARENT_POLL_S)
    os._exit(1)


def main() -> None:
    """Answer requests until standard input ends."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    # Answers go to the descriptor that was standard output; what libraries print must not.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    actions: dict[str, Callable[..., Any]] = {"build": build, "observe": observe}

    def load(**arguments: Any) -> None:  # noqa: ANN401  # raw JSON
        loaded = Loaded(**arguments)
        named = (loaded.encode, loaded.score, loaded.speed, loaded.machine)
        for action in (*named, loaded.is_batch_invariant):
            actions[action.__name__] = action

    actions["load"] = load
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"ok": actions[request.pop("do")](**request)}
        except EmbedserveError as error:
            reply = {"error": error.message}
        answers.write(json.dumps(reply) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
