"""The `embedserve` command whose jobs get sums over a table in place of the engine's vectors.

What ingestion costs beside the engine, on a machine where a large tree would keep that busy for
hours. The model is loaded all the same: its tokenizer is used, and its canary is checked.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np

from embedserve.cli import main
from embedserve.engine.encoder import Encoder
from embedserve.engine.tokenizer import TokenizedText
from embedserve.types import Lane, Vectors

_TABLE_ROWS = 4096

_submit = Encoder.submit


def _sums(
    encoder: Encoder,
    texts: Sequence[TokenizedText],
    *,
    lane: Lane,
    **how: Any,  # noqa: ANN401
) -> Future[Vectors]:
    """Take texts as `Encoder.submit` does; those of a job have their vectors at once."""
    if lane != "bulk":
        return _submit(encoder, texts, lane=lane, **how)
    future: Future[Vectors] = Future()
    table = _table(encoder.spec.dimensions)
    rows = np.empty((len(texts), table.shape[1]), dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        row[:] = table[text.ids % _TABLE_ROWS].sum(axis=0)
    future.set_result(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    return future


_tables: dict[int, Vectors] = {}


def _table(dimensions: int) -> Vectors:
    if dimensions not in _tables:
        chance = np.random.default_rng(0)
        _tables[dimensions] = chance.normal(size=(_TABLE_ROWS, dimensions)).astype(np.float32)
    return _tables[dimensions]


if __name__ == "__main__":
    Encoder.submit = _sums  # type: ignore[method-assign, assignment]
    main()
