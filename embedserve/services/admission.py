"""Refuse before tokenizing: what waits for a tokenizer is load as much as what waits for a worker.

A forecast from the number of characters decides. What was let into its lane is not refused later,
when the engine has become slower meanwhile: nobody should wait for a refusal.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from embedserve.engine.encoder import Encoder
from embedserve.engine.requests import busy
from embedserve.types import Lane

# Short English words of one token each, with the space between; other scripts need more tokens.
_TOKEN_CHARS = 4
_OTHER_TOKEN_CHARS = 2
_SPECIAL_TOKENS = 2
# The forecast of a request may be wrong by this factor before it is judged by the wrong lane.
_DOUBT = 1.25


class Admission:
    """Count the texts of one event loop that wait for a tokenizer, by lane."""

    def __init__(self, *, small_request_tokens: int) -> None:
        self._small_request_tokens = small_request_tokens
        self._coming: Counter[Lane] = Counter()

    @contextmanager
    def place(self, encoder: Encoder, tokens: int) -> Iterator[Lane]:
        """Hold a place for texts while they are tokenized; gives the lane that they should be of.

        `tokens` is about how many they will have, see `forecast`.
        Raises OverloadedError when every lane that they may belong to is full.
        """
        waits_s = {
            lane: encoder.excess_s(lane, tokens, coming=self._coming[lane])
            for lane in self._lanes(tokens)
        }
        lane = min(waits_s, key=lambda lane: waits_s[lane])
        if waits_s[lane] > 0:
            raise busy(waits_s[lane])
        self._coming[lane] += tokens
        try:
            yield lane
        finally:
            self._coming[lane] -= tokens

    def _lanes(self, tokens: int) -> Sequence[Lane]:
        if tokens * _DOUBT <= self._small_request_tokens:
            return ("small",)
        if tokens > self._small_request_tokens * _DOUBT:
            return ("bulk",)
        return ("small", "bulk")


def forecast(texts: Sequence[str], max_tokens: int, *, prompt: str = "") -> int:
    """Return about how many tokens texts will have behind `prompt`, each cut to `max_tokens`."""
    before = forecast_one(prompt) - _SPECIAL_TOKENS
    return sum(min(before + forecast_one(text), max_tokens) for text in texts)


def forecast_pairs(
    query: str, texts: Sequence[str], max_tokens: int, *, max_text_tokens: int | None
) -> int:
    """Return about how many tokens `query` will have with each of the texts, all pairs together."""
    query_tokens = min(forecast_one(query), max_tokens)
    room = max_tokens - query_tokens
    return len(texts) * query_tokens + forecast(texts, min(max_text_tokens or room, room))


def forecast_one(text: str) -> int:
    """Return about how many tokens one text will have."""
    chars = _TOKEN_CHARS if text.isascii() else _OTHER_TOKEN_CHARS
    return len(text) // chars + _SPECIAL_TOKENS
