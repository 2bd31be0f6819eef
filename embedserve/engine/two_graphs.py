"""A model loaded twice: for runs beside others, and on more threads for a text that is alone.

Runs with one thread each are best while as many come as there are cores; while one text is all that
there is, the other cores have nothing to do.

More threads may add up in another order, and a vector must not depend on how busy the server is.
So both graphs are compared, bit by bit, on a few texts of each bucket before the wide one may
answer there. That is a sample, no proof: a text that was not compared could still differ. One
difference anywhere ends it for the whole model.
"""

import logging
from collections.abc import Sequence

import numpy as np

from embedserve.engine.backend import Backend
from embedserve.types import TokenIds, Vectors

logger = logging.getLogger(__name__)

# Made-up texts that are compared in each bucket, besides the first that comes. Each costs its
# bucket's first text two more runs.
SAMPLES = 3


class TwoGraphs:
    """A Backend of two that were loaded from one file; `wide` takes more threads for each run."""

    def __init__(self, usual: Backend, wide: Backend) -> None:
        self._usual = usual
        self._wide = wide
        self._compared: set[int] = set()
        """Buckets of which no text differed."""
        self._differs = False

    def bucket(self, length: int) -> int:
        """Return the usual bucket; see `Backend.bucket`."""
        return self._usual.bucket(length)

    def fixed_texts(self, bucket: int) -> int | None:
        """Return the usual number; see `Backend.fixed_texts`."""
        return self._usual.fixed_texts(bucket)

    def run(self, texts: Sequence[TokenIds], *, is_alone: bool = False) -> Vectors:
        """Run a text that is alone on more threads, unless bits were found to differ.

        The first one of a bucket is run by both graphs, and so are a few made of its tokens.
        See `Backend.run`.
        """
        if self._differs or not is_alone or len(texts) > 1:
            return self._usual.run(texts)
        bucket = self.bucket(len(texts[0]))
        if bucket in self._compared:
            return self._wide.run(texts)
        return self._compare(texts, bucket)

    def close(self) -> None:
        """Close both; see `Backend.close`."""
        self._usual.close()
        self._wide.close()

    def _compare(self, texts: Sequence[TokenIds], bucket: int) -> Vectors:
        """Run a bucket's first text, and note whether the wide graph may run the next ones."""
        rows = self._usual.run(texts)
        is_same = rows.tobytes() == self._wide.run(texts).tobytes()
        for sample in _samples(texts[0]):
            if not is_same:
                break
            is_same = self._usual.run([sample]).tobytes() == self._wide.run([sample]).tobytes()
        if is_same:
            self._compared.add(bucket)
        elif not self._differs:
            self._differs = True
            logger.warning(
                "a text of %d tokens has another vector on more threads: all texts of this model "
                "stay with one",
                bucket,
            )
        return rows


def _samples(text: TokenIds) -> list[TokenIds]:
    """Make texts as long as `text`, with its first and last token and others of the vocabulary."""
    chance = np.random.default_rng(len(text))
    samples = [text.copy() for _ in range(SAMPLES)]
    for sample in samples:
        # No id above the text's own: the vocabulary is known to reach so far.
        sample[1:-1] = chance.integers(0, int(text.max()) + 1, max(len(text) - 2, 0))
    return samples
