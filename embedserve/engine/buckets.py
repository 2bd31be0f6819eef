"""Padded lengths, for engines to which every new shape costs something. Runs nothing.

A text is padded to its own bucket, never to a neighbour's, so that its vector stays its own.
"""

from collections.abc import Sequence

from embedserve.errors import ModelError
from embedserve.types import TokenIds


def next_bucket(length: int, limit: int) -> int:
    """Return the next multiple of 8 up to 64, of 16 up to 256, of 32 up to 512, and so on.

    The last bucket is `limit`, the model's length, beyond which a table of positions may end.
    Raises ModelError for a text that is longer.
    """
    if length > limit:
        raise ModelError(f"A text of {length} tokens is too long for a model of {limit}.")
    step = 8 if length <= 64 else max(16, 1 << (length - 1).bit_length() - 4)
    return min(-(-max(length, 1) // step) * step, limit)


def fill(ids: TokenIds, mask: TokenIds, texts: Sequence[TokenIds], pad_token_id: int) -> None:
    """Write texts into (batch, bucket) arrays, behind each its padding, and the mask."""
    ids.fill(pad_token_id)
    mask.fill(0)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1


def split(texts: Sequence[TokenIds], largest: int) -> list[Sequence[TokenIds]]:
    """Cut a batch into powers of two up to `largest`: 7 become 4, 2 and 1."""
    parts = []
    first = 0
    while first < len(texts):
        count = 1 << min(largest, len(texts) - first).bit_length() - 1
        parts.append(texts[first : first + count])
        first += count
    return parts
