"""Text to token ids and offsets, with the model's own tokenizer. Knows lengths, not vectors."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from embedserve.errors import InputTooLongError, InvalidRequestError, ModelError
from embedserve.types import TokenIds

T = TypeVar("T", np.int32, np.int64)

# A long text is tokenized by its head first: this many characters for each token that fits.
HEAD_CHARS_PER_TOKEN = 32
# The head's last word may have been cut in two; WordPiece splits no word over 100 characters,
# so more tokens than this beyond the limit prove that the head alone fills the model.
HEAD_MARGIN_TOKENS = 128
# When the head is not enough (long words, runs of spaces) this many times as much is read.
_READ_MORE = 4
# And no more than this of any text, unless the head itself is longer.
MOST_CHARS = 1_000_000

_MOST_IDS = 2**32
# Numbers that are made an array in one go, some milliseconds.
_PIECE = 20_000

# Where a text may be cut without another token behind the cut: no tokenizer joins words across it,
# and a run of spaces stays whole.
_WORD_END = re.compile(r"(?<=\S)\s")
# So much of a text decides which tokens a prompt in front of it becomes.
_BEGINNING_CHARS = 4096


@dataclass(frozen=True)
class TokenizedText:
    """One text, ready for the engine."""

    ids: TokenIds
    """(length,) int64, special tokens included."""
    is_truncated: bool
    """Whether text was cut off: beyond the limit, or beyond what is read of a text at most."""


@dataclass(frozen=True)
class _Body:
    """A text's own tokens."""

    ids: list[int]
    is_truncated: bool


@dataclass(frozen=True)
class TokenSpans:
    """The tokens of one text."""

    ids: NDArray[np.int32]
    """(tokens,) int32."""
    offsets: NDArray[np.int32] | None
    """(tokens, 2) int32, characters from and to; (0, 0) for special tokens. None: not asked for."""


class ModelTokenizer:
    """A `tokenizer.json` with its own truncation and padding switched off. Safe across threads.

    Published files often carry settings made for training (all-MiniLM-L6-v2 pads to 128 and
    cuts at 128, though the model takes 256), so the length is always given from outside.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # narrower is not possible: it raises Exception itself
            raise ModelError(f"Tokenizer `{path}` cannot be read: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._prefix, self._suffix = _special_tokens(self._tokenizer.encode("a"), texts=1)
        self._splits_at_spaces = _splits_at_spaces(self._tokenizer)
        self._around_pair = _special_tokens(self._tokenizer.encode("a", "a"), texts=2)

    @property
    def special_tokens(self) -> int:
        """Tokens that every text has besides its own."""
        return len(self._prefix) + len(self._suffix)

    def tokenize(self, text: str, max_tokens: int) -> TokenizedText:
        """Return the ids of `text`, cut to `max_tokens` with the special tokens kept."""
        body = self._cut(text, max(max_tokens - self.special_tokens, 0))
        return _joined(self._prefix, body, self._suffix)

    def tokenize_query(self, query: str, max_tokens: int) -> list[int]:
        """Return the ids of a reranker's query, without special tokens, for `tokenize_pairs`.

        Raises InputTooLongError when it leaves no room for a single token of a document.
        """
        room = max_tokens - sum(map(len, self._around_pair))
        body = self._cut(query, max(room - 1, 0))
        if body.is_truncated or room < 1:
            raise InputTooLongError(
                f"The query is too long: with a document's first token it exceeds the {max_tokens} "
                "tokens that this model takes. A query is not cut; shorten it."
            )
        return body.ids

    def tokenize_pairs(
        self,
        query: Sequence[int],
        texts: Sequence[str],
        max_tokens: int,
        *,
        max_text_tokens: int | None,
    ) -> list[TokenizedText]:
        """Return the ids of a query, see `tokenize_query`, with each text; only texts are cut.

        A text is cut to what the query leaves of `max_tokens`, and to `max_text_tokens`.
        """
        before, between, after = self._around_pair
        room = max_tokens - sum(map(len, self._around_pair)) - len(query)
        room = min(room, max_text_tokens or room)
        start = [*before, *query, *between]
        return [_joined(start, self._cut(text, room), after) for text in texts]

    def tokenize_end(self, prompt: str, text: str, max_tokens: int) -> TokenizedText:
        """Return the ids of `prompt` and `text`, the beginning of `text` cut to `max_tokens`.

        Of a text over `MOST_CHARS` characters only so many are read, the last ones.
        """
        room = max(max_tokens - self.special_tokens, 0)
        readable = text[-MOST_CHARS:]
        end = self._end(readable, room)
        start = self._encoding(prompt + readable[: None if end is None else _BEGINNING_CHARS])
        if end is None and len(start.ids) <= room:
            body = _Body(start.ids, is_truncated=len(readable) < len(text))
            return _joined(self._prefix, body, self._suffix)
        # The prompt says what the text is for, so it stays as long as there is room.
        kept = sum(until <= len(prompt) for _, until in start.offsets) if prompt else 0
        kept = min(kept, room)
        end = start.ids if end is None else end
        body = _Body(start.ids[:kept] + end[len(end) - (room - kept) :], is_truncated=True)
        return _joined(self._prefix, body, self._suffix)

    def read(self, text: str, *, with_special: bool, with_offsets: bool) -> TokenSpans:
        """Return every token of `text`, none cut off, and where it lies."""
        # Of the two the fast one knows no offsets. Both let other threads run, unlike `encode`.
        batch = self._tokenizer.encode_batch if with_offsets else self._tokenizer.encode_batch_fast
        [found] = batch([text], add_special_tokens=with_special)
        ids = _numbers(found, np.int32)
        return TokenSpans(ids, _spans(found, np.int32) if with_offsets else None)

    def write(self, ids: Sequence[int], *, without_special: bool) -> str:
        """Return the text that `ids` stand for, as far as the tokenizer can tell.

        Raises InvalidRequestError for an id that the vocabulary does not have.
        """
        size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        for position, token in enumerate(ids):
            # Ids may have gaps, so the last word is the vocabulary's own.
            if not 0 <= token < _MOST_IDS or self._tokenizer.id_to_token(token) is None:
                raise InvalidRequestError(
                    f"Token {position} is {token}, which the model's vocabulary of {size} tokens "
                    "does not have."
                )
        # Unlike `decode` it lets other threads run.
        [text] = self._tokenizer.decode_batch([list(ids)], skip_special_tokens=without_special)
        return str(text)

    def offsets(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return where each token lies; see `types.TokenOffsets`."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        if not self._splits_at_spaces:
            return [_spans(item, np.int64) for item in encodings]
        return [
            np.column_stack([_spans(item, np.int64), _numbers(item, np.int64)])
            for item in encodings
        ]

    def join(self, parts: Sequence[Sequence[int]], max_tokens: int) -> TokenizedText:
        """Return ids that were tokenized apart as one text, as `tokenize` would.

        For parts with a space or line break between them, and a tokenizer that gives ids with
        its offsets.
        """
        room = max(max_tokens - self.special_tokens, 0)
        ids = [id_ for part in parts for id_ in part]
        return _joined(self._prefix, _Body(ids[:room], len(ids) > room), self._suffix)

    def _cut(self, text: str, room: int) -> _Body:
        """Return the first `room` ids of `text`, without special tokens."""
        head = (room + HEAD_MARGIN_TOKENS) * HEAD_CHARS_PER_TOKEN
        readable = text[: max(head, MOST_CHARS)]
        ids = self._body(readable, room, head)
        return _Body(ids[:room], is_truncated=len(ids) > room or len(readable) < len(text))

    def _body(self, text: str, room: int, head: int) -> list[int]:
        """Return the ids without special tokens: all of them, or provably more than `room`."""
        while head < len(text):
            ids = self._ids(text[:head])
            if len(ids) > room + HEAD_MARGIN_TOKENS:
                return ids
            head *= _READ_MORE
        return self._ids(text)

    def _end(self, text: str, room: int) -> list[int] | None:
        """Return the last ids of `text`, provably more than `room`; None: all of it is needed."""
        read = (room + HEAD_MARGIN_TOKENS) * HEAD_CHARS_PER_TOKEN
        while read < len(text):
            if cut := _WORD_END.search(text, len(text) - read):
                ids = self._ids(text[cut.start() :])
                if len(ids) > room + HEAD_MARGIN_TOKENS:
                    return ids
            read *= _READ_MORE
        return None

    def _encoding(self, text: str) -> Encoding:
        [encoding] = self._tokenizer.encode_batch([text], add_special_tokens=False)
        return encoding

    def _ids(self, text: str) -> list[int]:
        [encoding] = self._tokenizer.encode_batch_fast([text], add_special_tokens=False)
        ids: list[int] = encoding.ids
        return ids


def _joined(start: Sequence[int], body: _Body, end: Sequence[int]) -> TokenizedText:
    ids = np.array([*start, *body.ids, *end], dtype=np.int64)
    return TokenizedText(ids=ids, is_truncated=body.is_truncated)


def _spans(encoding: Encoding, dtype: type[T]) -> NDArray[T]:
    """Return where each token lies: (tokens, 2) characters from and to."""
    offsets = encoding.offsets
    return _array(chain.from_iterable(offsets), 2 * len(offsets), dtype).reshape(-1, 2)


def _numbers(encoding: Encoding, dtype: type[T]) -> NDArray[T]:
    """Return the ids: (tokens,)."""
    ids = encoding.ids  # a new list each time
    return _array(ids, len(ids), dtype)


def _array(values: Iterable[int], count: int, dtype: type[T]) -> NDArray[T]:
    """Return an array of `count` numbers, made piece by piece: other threads run in between."""
    left = iter(values)
    pieces: list[NDArray[T]] = [np.empty(0, dtype)]
    for first in range(0, count, _PIECE):
        pieces.append(np.fromiter(left, dtype, min(_PIECE, count - first)))
    return np.concatenate(pieces)


def _splits_at_spaces(tokenizer: Tokenizer) -> bool:
    """Tell whether the tokens between two spaces are the same whatever stands beyond them.

    So it is for BERT's own way: words are split at spaces before anything else, and what comes
    first or last in a text is no special case.
    """
    stages = (tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.model)
    names = tuple(type(stage).__name__ for stage in stages)
    added = tokenizer.get_added_tokens_decoder().values()
    return names == ("BertNormalizer", "BertPreTokenizer", "WordPiece") and not any(
        one.lstrip or one.rstrip or one.content.split() != [one.content] for one in added
    )


def _special_tokens(sample: Encoding, *, texts: int) -> list[list[int]]:
    """Return the special tokens of a sample: before its first text, between, after its last."""
    gaps: list[list[int]] = [[] for _ in range(texts + 1)]
    begun = 0
    for id_, place in zip(sample.ids, sample.sequence_ids, strict=True):
        if place is None:
            gaps[begun].append(id_)
        else:
            begun = place + 1
    return gaps
