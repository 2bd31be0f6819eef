"""Texts to tokens beside the event loop, in turns, so that no text keeps the others waiting."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from embedserve.errors import TooLargeError

S = TypeVar("S")
T = TypeVar("T")

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
        self,
        read: Callable[[Sequence[str]], list[T]],
        texts: Sequence[str],
        *,
        prompt_chars: int = 0,
        other_chars: int = 0,
    ) -> list[T]:
        """Return what `read`, such as `Encoder.tokenize`, makes of each text.

        `prompt_chars` are what it reads in front of each; `other_chars` are what the request has
        besides, be they read elsewhere.
        Raises TooLargeError that names the texts. When the caller is cancelled, the rest is left.
        """
        if is_quick(texts, prompt_chars=prompt_chars, other_chars=other_chars):
            return read(texts)
        self._refuse_too_large(texts)
        return await self.take_turns(read, texts, lambda text: _cost(text) + prompt_chars)

    async def take_turns(
        self, work: Callable[[Sequence[S]], list[T]], items: Sequence[S], cost: Callable[[S], int]
    ) -> list[T]:
        """Return what `work` makes of each item, in turns of about `TURN_CHARS` of their `cost`.

        When the caller is cancelled, the turns that have not begun are left.
        """
        loop = asyncio.get_running_loop()
        done: list[T] = []
        for turn in _turns(items, cost):
            done += await loop.run_in_executor(self._threads, work, turn)
        return done

    async def tokenize_query(self, read: Callable[[str], list[int]], query: str) -> list[int]:
        """Return what `read`, such as `Encoder.tokenize_query`, makes of the query of a request.

        Raises TooLargeError.
        """
        if is_quick([query]):
            return read(query)
        if _is_larger(query, self._max_text_bytes):
            raise TooLargeError(
                f"The query has more than {self._max_text_bytes} bytes (EMBEDSERVE_MAX_TEXT_BYTES)."
                " A query is not cut; shorten it."
            )
        return await asyncio.get_running_loop().run_in_executor(self._threads, read, query)

    def close(self) -> None:
        """Take no more texts."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _refuse_too_large(self, texts: Sequence[str]) -> None:
        limit = self._max_text_bytes
        wrong = [i for i, text in enumerate(texts) if _is_larger(text, limit)]
        if wrong:
            raise TooLargeError(
                f"Text {wrong[0]} has more than {limit} bytes (EMBEDSERVE_MAX_TEXT_BYTES). Only "
                "the first tokens of a text are embedded: split it into chunks, or ingest it as a "
                "document.",
                positions=wrong,
            )


def _is_larger(text: str, limit_bytes: int) -> bool:
    # A character takes one to four bytes, so most texts need not be counted.
    if len(text) * 4 <= limit_bytes:
        return False
    size = len(text)
    if size <= limit_bytes and not text.isascii():
        size = len(text.encode(errors="surrogatepass"))
    return size > limit_bytes


def is_quick(texts: Sequence[str], *, prompt_chars: int = 0, other_chars: int = 0) -> bool:
    """Tell whether texts are tokenized on the event loop: sooner than they would leave it."""
    chars = sum(map(_cost, texts), other_chars) + prompt_chars * len(texts)
    return chars <= ON_LOOP_CHARS


def _cost(text: str) -> int:
    """Return what a text costs, in characters: an empty one is work too."""
    return len(text) + TEXT_CHARS


def _turns(items: Sequence[S], cost: Callable[[S], int]) -> Iterator[Sequence[S]]:
    """Cut a request into runs of items that cost about `TURN_CHARS` each, one item at least."""
    first, chars = 0, 0
    for position, item in enumerate(items):
        item_chars = cost(item)
        if chars and chars + item_chars > TURN_CHARS:
            yield items[first:position]
            first, chars = position, 0
        chars += item_chars
    yield items[first:]
