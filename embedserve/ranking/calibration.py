"""One relevance of 0..1 for a hit, from what the legs say of it: what `min_score` is compared with.

A logistic model for each model, since cosines of different models are not alike, over the cosine
and the words that question and chunk share. BM25 says no more than these do together, and its scale
is that of an index. The weights are in calibration.toml; docs/decisions.md has how well they hold.
"""

import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import exp

HEAD_CHARS = 5
"""Of a word: enough to know it by in most of its forms, in languages that inflect at the end."""


@dataclass(frozen=True)
class Calibration:
    """What was fitted for one model; no weight is negative but the intercept."""

    intercept: float
    cosine: float
    overlap: float

    def relevance(self, cosine: float, overlap: float) -> float:
        """Return the chance that a hit answers, 0..1; it never falls as the cosine rises.

        `cosine` is that of question and chunk, -1..1, whichever leg found it; `overlap` is what
        the function of that name says of the question's words and the text that was embedded.
        """
        return _sigmoid(self.intercept + self.cosine * cosine + self.overlap * overlap)


def calibration_of(model: str) -> Calibration | None:
    """Return what was fitted for a model of this name, without tag; None: nothing was."""
    return _fitted().get(model.partition(":")[0])


def overlap(words: Collection[str], text: str) -> float:
    """Return the share of the question's words that a text has, by their first letters, 0..1.

    Leave out of `words` those that say nothing ("the", "what"), where there are others.
    """
    wanted = {word.casefold()[:HEAD_CHARS] for word in words}
    said = text.casefold()
    return sum(_has_word(said, head) for head in wanted) / len(wanted) if wanted else 0.0


def _has_word(text: str, head: str) -> bool:
    """Tell whether a text has a word that begins so, or that is so where it is a shorter one."""
    at = text.find(head)
    while at >= 0:
        end = at + len(head)
        if not (at and _is_letter(text[at - 1])) and (
            len(head) == HEAD_CHARS or not _is_letter(text[end : end + 1])
        ):
            return True
        at = text.find(head, at + 1)
    return False


def _is_letter(char: str) -> bool:
    """Tell what `\\w` matches."""
    return char.isalnum() or char == "_"


@cache
def _fitted() -> dict[str, Calibration]:
    text = files("embedserve.ranking").joinpath("calibration.toml").read_text(encoding="utf-8")
    return {model: Calibration(**fitted) for model, fitted in tomllib.loads(text)["models"].items()}


def _sigmoid(value: float) -> float:
    return 1 / (1 + exp(-value)) if value >= 0 else exp(value) / (1 + exp(value))
