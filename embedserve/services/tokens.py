"""Texts to all of their tokens, and back: nothing is cut off, and nothing is embedded."""

from collections.abc import Sequence
from functools import partial

from embedserve.engine.tokenizer import MOST_CHARS, TokenSpans
from embedserve.errors import TooLargeError
from embedserve.services.deadline import deadline
from embedserve.services.loading import ModelLoader
from embedserve.services.rows import refuse_too_many
from embedserve.services.tokenizing import TEXT_CHARS, TokenizerPool

MOST_WRITTEN_IDS = 1_000_000
# What an id costs to look up and decode, in characters that are tokenized.
_ID_CHARS = 4
_IN_PARTS = "Send them in several requests."


class TokenService:
    """Answer requests about tokens, in the turns of all others that tokenize."""

    def __init__(
        self, models: ModelLoader, tokenizers: TokenizerPool, *, max_texts: int, timeout_s: float
    ) -> None:
        """Give requests `timeout_s` at most; 0: as long as they take."""
        self._models = models
        self._tokenizers = tokenizers
        self._max_texts = max_texts
        self._timeout_s = timeout_s

    async def read(
        self,
        model: str,
        texts: Sequence[str],
        *,
        with_special: bool,
        with_offsets: bool,
        timeout_s: float | None = None,
    ) -> list[TokenSpans]:
        """Return every token of each text, none cut off.

        Raises ModelNotFoundError, DeadlineError, and TooLargeError for more than is read.
        """
        refuse_too_many(texts, self._max_texts, what="texts", instead=_IN_PARTS)
        _refuse_too_long(texts)
        async with deadline(timeout_s, self._timeout_s):
            encoder = await self._models.encoder(model)
            encoder.touch()
            read = partial(
                encoder.read_tokens, with_special=with_special, with_offsets=with_offsets
            )
            return await self._tokenizers.tokenize(read, texts)

    async def write(
        self,
        model: str,
        ids: Sequence[Sequence[int]],
        *,
        without_special: bool,
        timeout_s: float | None = None,
    ) -> list[str]:
        """Return the text of each list of ids.

        Raises ModelNotFoundError, DeadlineError, TooLargeError, and InvalidRequestError for an id
        that the model does not know.
        """
        self.refuse_too_many_ids(ids)
        async with deadline(timeout_s, self._timeout_s):
            encoder = await self._models.encoder(model)
            encoder.touch()
            write = partial(encoder.write_tokens, without_special=without_special)
            return await self._tokenizers.take_turns(write, ids, _cost)

    def refuse_too_many_ids(self, ids: Sequence[Sequence[object]]) -> None:
        """Raise TooLargeError for more lists, or ids in all, than are written."""
        refuse_too_many(ids, self._max_texts, what="lists", instead=_IN_PARTS)
        count = sum(map(len, ids))
        if count > MOST_WRITTEN_IDS:
            raise TooLargeError(
                f"{count} token ids in one request; at most {MOST_WRITTEN_IDS} are allowed. "
                f"{_IN_PARTS}"
            )


def _refuse_too_long(texts: Sequence[str]) -> None:
    chars = sum(map(len, texts))
    if chars > MOST_CHARS:
        raise TooLargeError(
            f"The texts have {chars} characters; at most {MOST_CHARS} characters are tokenized for "
            f"one request. {_IN_PARTS}"
        )


def _cost(ids: Sequence[int]) -> int:
    return TEXT_CHARS + _ID_CHARS * len(ids)
