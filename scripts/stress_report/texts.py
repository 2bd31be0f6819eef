"""Texts of a chosen length that practically never repeat, and texts of any kind."""

import random

# Each is one token of the model's vocabulary.
WORDS = """
time year people way day man thing woman life child world school state family student group
country problem hand part place case week company system program question work government number
night point home water room mother area money story fact month lot right study book eye job word
"""
_SPECIAL_TOKENS = 2
# Where letters of several scripts, combining marks, symbols and emoji begin; none is a surrogate.
_SCRIPTS = (0x00C0, 0x0300, 0x0391, 0x0430, 0x05D0, 0x0627, 0x0915, 0x4E00, 0xAC00, 0x1F600)
_LONGEST_TOKENS = 256


class Texts:
    """A source of texts; the same seed gives the same ones."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._words = WORDS.split()

    def make(self, count: int, tokens: int) -> list[str]:
        """Return texts of `tokens` tokens, special ones included."""
        words = max(1, tokens - _SPECIAL_TOKENS)
        return [" ".join(self._random.choices(self._words, k=words)) for _ in range(count)]

    def mixed(self) -> list[str]:
        """Return some texts of any length, one in eight of them of letters from anywhere."""
        count = self._random.choice((1, 1, 1, 2, 4, 8, 16, 32))
        return [self._any() for _ in range(count)]

    def _any(self) -> str:
        tokens = self._random.randint(1, _LONGEST_TOKENS)
        if self._random.random() < 7 / 8:
            return self.make(1, tokens)[0]
        starts = self._random.choices(_SCRIPTS, k=tokens)
        return "".join(chr(start + self._random.randrange(32)) for start in starts)
