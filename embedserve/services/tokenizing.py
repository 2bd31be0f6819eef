"""Texts to tokens beside the event loop, in turns, so that no text keeps the others waiting."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from embedserve.engine.encoder import Encoder
from embedserve.engine.tokenizer import TokenizedText
from embedserve.errors import TooLargeError

Tokenize = Callable[[Sequence[str]], list[TokenizedText]]

# Figures: docs/decisions.md, "Tokenizing".
ON_LOOP_CHARS = 500
# What one request does before it is another's turn: some hundredths of a second.
TURN_CHARS = 100_000
# Each text costs as much besides, whatever it has in it.
TEXT_CHARS = 50


class TokenizerPool:
    """Tokenize for one event loop; a large request gives way to others after each turn."""

    def __init__(self, threads: int, *, max_text_bytes: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="tokenize")
        self._max_text_bytes = max_text_bytes

    async def tokenize(
        self, encoder: Encoder, texts: Sequence[str], *, max_tokens: int | None
    ) -> list[TokenizedText]:
        """Return the tokens of each text, see `Encoder.tokenize`.

        Raises TooLargeError that names the text. When the caller is cancelled, the rest is left.
        """
        return await self._tokenize(partial(encoder.tokenize, max_tokens=max_tokens), texts)

    async def tokenize_pairs(
        self, encoder: Encoder, query: str, texts: Sequence[str], *, max_text_tokens: int | None
    ) -> list[TokenizedText]:
        """Return the tokens of `query` with each text, see `Encoder.tokenize_pairs`.

        Raises InputTooLongError, and TooLargeError that names the text.
        """
        tokenize = partial(encoder.tokenize_pairs, query, max_text_tokens=max_text_tokens)
        return await self._tokenize(tokenize, texts, more_chars=len(query))

    async def _tokenize(
        self, tokenize: Tokenize, texts: Sequence[str], *, more_chars: int = 0
    ) -> list[TokenizedText]:
        if sum(map(_cost, texts)) + more_chars <= ON_LOOP_CHARS:
            return tokenize(texts)
        for position, text in enumerate(texts):
            self._refuse_too_large(position, text)
        loop = asyncio.get_running_loop()
        tokenized: list[TokenizedText] = []
        for turn in _turns(texts):
            tokenized += await loop.run_in_executor(self._threads, tokenize, turn)
        return tokenized

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
