"""Refuse before tokenizing: what waits for a tokenizer is load as much as what waits for a worker.

A forecast from the number of characters. The engine's queue decides again, by the true tokens.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from embedserve.engine.encoder import Encoder
from embedserve.engine.scheduler import busy
from embedserve.types import Lane

# English words of one token each, with the space between; most other texts have fewer.
_TOKEN_CHARS = 4
_SPECIAL_TOKENS = 2
# The forecast of a request may be wrong by this factor before it is judged by the wrong lane.
_DOUBT = 1.25


class Admission:
    """Count the texts of one event loop that wait for a tokenizer, by lane."""

    def __init__(self, *, small_request_tokens: int) -> None:
        self._small_request_tokens = small_request_tokens
        self._coming: Counter[Lane] = Counter()

    @contextmanager
    def place(
        self, encoder: Encoder, texts: Sequence[str], *, max_tokens: int | None
    ) -> Iterator[None]:
        """Hold a place for texts while they are tokenized.

        Raises OverloadedError when every lane that they may belong to is full.
        """
        tokens = forecast(
            texts, min(max_tokens or encoder.spec.max_tokens, encoder.spec.max_tokens)
        )
        waits_s = {
            lane: encoder.excess_s(lane, tokens, coming=self._coming[lane])
            for lane in self._lanes(tokens)
        }
        lane = min(waits_s, key=lambda lane: waits_s[lane])
        if waits_s[lane] > 0:
            raise busy(waits_s[lane])
        self._coming[lane] += tokens
        try:
            yield
        finally:
            self._coming[lane] -= tokens

    def _lanes(self, tokens: int) -> Sequence[Lane]:
        if tokens * _DOUBT <= self._small_request_tokens:
            return ("small",)
        if tokens > self._small_request_tokens * _DOUBT:
            return ("bulk",)
        return ("small", "bulk")


def forecast(texts: Sequence[str], max_tokens: int) -> int:
    """Return about how many tokens texts will have, each cut to `max_tokens`."""
    return sum(min(len(text) // _TOKEN_CHARS + _SPECIAL_TOKENS, max_tokens) for text in texts)
