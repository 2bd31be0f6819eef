"""Texts to tokens beside the event loop, in turns, so that no text keeps the others waiting."""

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from embedserve.engine.encoder import Encoder
from embedserve.engine.tokenizer import TokenizedText
from embedserve.errors import TooLargeError
from embedserve.services.admission import Admission
from embedserve.types import Lane

# Figures: docs/decisions.md, "Tokenizing".
ON_LOOP_CHARS = 500
# What one request does before it is another's turn: some hundredths of a second.
TURN_CHARS = 100_000
# Each text costs as much besides, whatever it has in it.
TEXT_CHARS = 50


@dataclass(frozen=True, slots=True)
class Tokenized:
    """The texts of one request."""

    texts: list[TokenizedText]
    lane: Lane | None
    """The lane that they were let into beforehand; None: that is still to be asked."""


class TokenizerPool:
    """Tokenize for one event loop; a large request gives way to others after each turn."""

    def __init__(self, threads: int, admission: Admission, *, max_text_bytes: int) -> None:
        self._admission = admission
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="tokenize")
        self._max_text_bytes = max_text_bytes

    async def tokenize(
        self, encoder: Encoder, texts: Sequence[str], *, max_tokens: int | None
    ) -> Tokenized:
        """Return the tokens of each text, see `Encoder.tokenize`.

        Raises TooLargeError that names the text, and OverloadedError when a long request would find
        the queue full: that is told before anything is tokenized. When the caller is cancelled, the
        rest is left.
        """
        if sum(map(_cost, texts)) <= ON_LOOP_CHARS:
            return Tokenized(encoder.tokenize(texts, max_tokens=max_tokens), None)
        for position, text in enumerate(texts):
            self._refuse_too_large(position, text)
        loop = asyncio.get_running_loop()
        tokenize = partial(encoder.tokenize, max_tokens=max_tokens)
        tokenized: list[TokenizedText] = []
        with self._admission.place(encoder, texts, max_tokens=max_tokens) as lane:
            for turn in _turns(texts):
                tokenized += await loop.run_in_executor(self._threads, tokenize, turn)
        return Tokenized(tokenized, lane)

    def close(self) -> None:
        """Take no more texts."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _refuse_too_large(self, position: int, text: str) -> None:
        # A character takes one to four bytes, so most texts need not be counted.
        limit = self._max_text_bytes
        if len(text) * 4 <= limit:
            return
        size = len(text)
        if size <= limit and not text.isascii():
            size = len(text.encode(errors="surrogatepass"))
        if size > limit:
            raise TooLargeError(
                f"Text {position} has more than {limit} bytes (EMBEDSERVE_MAX_TEXT_BYTES). Only "
                "the first tokens of a text are embedded: split it into chunks, or ingest it as a "
                "document."
            )


def _cost(text: str) -> int:
    """Return what a text costs, in characters: an empty one is work too."""
    return len(text) + TEXT_CHARS


def _turns(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut a request into runs of texts that cost about `TURN_CHARS` each, one text at least."""
    first, chars = 0, 0
    for position, text in enumerate(texts):
        if chars and chars + _cost(text) > TURN_CHARS:
            yield texts[first:position]
            first, chars = position, 0
        chars += _cost(text)
    yield texts[first:]
