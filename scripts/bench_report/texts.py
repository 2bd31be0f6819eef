"""Texts of an exact number of tokens, made of words; hardly two of them are ever equal."""

import json
import random

from embedserve.engine.tokenizer import ModelTokenizer
from embedserve.types import TokenIds

WORDS = """
time year people way day man thing woman life child world school state family student group
country problem hand part place case week company system program question work government number
night point home water room mother area money story fact month lot right study book eye job word
business issue side kind head house service friend father power hour game line end member law
car city community name president team minute idea body information back parent face others
level office door health person art war history party result change morning reason research girl
guy moment air teacher force education
"""


class Texts:
    """An endless supply, the same for the same seed. Not for several threads at once."""

    def __init__(self, tokenizer: ModelTokenizer, seed: int = 7) -> None:
        self._tokenizer = tokenizer
        longest = tokenizer.special_tokens + 1
        # Only what is one token: so a number of words is a number of tokens.
        self._words = [
            word for word in WORDS.split() if len(tokenizer.tokenize(word, 100).ids) == longest
        ]
        if not self._words:
            raise SystemExit(
                "The model's tokenizer knows none of the words that texts are made of."
            )
        self._random = random.Random(seed)

    def make(self, count: int, tokens: int) -> list[str]:
        """Return texts of `tokens` tokens, special ones included."""
        words = max(1, tokens - self._tokenizer.special_tokens)
        return [" ".join(self._random.choices(self._words, k=words)) for _ in range(count)]

    def ids(self, tokens: int) -> TokenIds:
        """Return the ids of one such text, (tokens,) int64."""
        [text] = self.make(1, tokens)
        return self._tokenizer.tokenize(text, tokens).ids

    def bodies(self, model: str, requests: int, texts: int, tokens: int) -> list[bytes]:
        """Return bodies of `/api/embed`, each with `texts` new texts."""
        return [
            json.dumps({"model": model, "input": self.make(texts, tokens)}).encode()
            for _ in range(requests)
        ]
