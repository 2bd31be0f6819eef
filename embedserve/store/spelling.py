"""Words that a question misspells: the nearest among those that the chunks of an index have."""

import sqlite3
from collections.abc import Callable, Collection

import numpy as np
from numpy.typing import NDArray

SPELT = range(3, 33)
"""Lengths of words that are looked at."""
SHORT = 4
"""Up to which one letter may be wrong; two in longer words."""
NEAREST = 50
"""Words of which it is asked how many chunks have them."""


def vocabulary(connection: sqlite3.Connection, index_id: int) -> set[str]:
    """Return the words of an index as people write them, in small letters."""
    words: set[str] = set()
    rows = connection.execute("SELECT words FROM lexical_segments WHERE index_id = ?", (index_id,))
    for (lines,) in rows:
        words.update(lines.split("\n"))
    return {word for word in map(spelt, words) if word}


def spelt(word: str) -> str:
    """Return a word as it is looked up, empty for what is none."""
    plain = word.strip("._").casefold()
    return plain if len(plain) in SPELT and plain.isalpha() else ""


def nearest(
    word: str, known: Collection[str], frequency: Callable[[str], int], *, count: int
) -> list[str]:
    """Return the known words nearest to one, the more frequent first of those as near.

    Near is what two edits make of it, or one of a short word: a letter added, left out, another,
    or two exchanged (optimal string alignment).
    """
    edits = 1 if len(word) <= SHORT else 2
    candidates = sorted(one for one in known if abs(len(one) - len(word)) <= edits)
    if not candidates:
        return []
    distances = _distances(word, candidates)
    near = np.flatnonzero(distances <= edits)
    near = near[np.argsort(distances[near], kind="stable")][:NEAREST]
    ranked = sorted(near.tolist(), key=lambda at: (distances[at], -frequency(candidates[at])))
    return [candidates[at] for at in ranked[:count]]


def _distances(word: str, others: list[str]) -> NDArray[np.uint8]:
    """Return the edits between a word and each other: (others,)."""
    wanted = np.frombuffer(word.encode("utf-32-le"), np.uint32)
    width = max(map(len, others))
    letters = np.array(others, f"U{width}").view(np.uint32).reshape(len(others), width).T
    lengths = np.array([len(one) for one in others])
    # One row of the table for each letter of `word`: (width + 1, others).
    row = np.repeat(np.arange(width + 1, dtype=np.uint8)[:, None], len(others), axis=1)
    before = row
    for i, letter in enumerate(wanted):
        above, row = row, np.empty_like(row)
        row[0] = i + 1
        for j in range(1, width + 1):
            is_other = letters[j - 1] != letter
            np.minimum(above[j] + 1, row[j - 1] + 1, out=row[j])
            np.minimum(row[j], above[j - 1] + is_other, out=row[j])
            if i and j > 1:
                swapped = (letters[j - 2] == letter) & (letters[j - 1] == wanted[i - 1])
                np.minimum(row[j], np.where(swapped, before[j - 2] + 1, 255), out=row[j])
        before = above
    distances: NDArray[np.uint8] = row[lengths, np.arange(len(others))]
    return distances
