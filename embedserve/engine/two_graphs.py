"""A model loaded twice: for runs beside others, and on more threads for a text that is alone.

Runs with one thread each are best while as many come as there are cores; while one text is all that
there is, the other cores have nothing to do.
"""

import logging
from collections.abc import Sequence

from embedserve.engine.backend import Backend
from embedserve.types import TokenIds, Vectors

logger = logging.getLogger(__name__)


class TwoGraphs:
    """A Backend of two that were loaded from one file; `wide` takes more threads for each run."""

    def __init__(self, usual: Backend, wide: Backend) -> None:
        self._usual = usual
        self._wide = wide
        self._has_same_bits: dict[int, bool] = {}

    def bucket(self, length: int) -> int:
        """Return the usual bucket; see `Backend.bucket`."""
        return self._usual.bucket(length)

    def fixed_texts(self, bucket: int) -> int | None:
        """Return the usual number; see `Backend.fixed_texts`."""
        return self._usual.fixed_texts(bucket)

    def run(self, texts: Sequence[TokenIds], *, is_alone: bool = False) -> Vectors:
        """Run a text that is alone on more threads, unless its bits would be others.

        The first one of a bucket is run by both graphs to find that out. See `Backend.run`.
        """
        if not is_alone or len(texts) > 1:
            return self._usual.run(texts)
        bucket = self.bucket(len(texts[0]))
        is_same = self._has_same_bits.get(bucket)
        if is_same is None:
            return self._try(texts, bucket)
        return (self._wide if is_same else self._usual).run(texts)

    def close(self) -> None:
        """Close both; see `Backend.close`."""
        self._usual.close()
        self._wide.close()

    def _try(self, texts: Sequence[TokenIds], bucket: int) -> Vectors:
        rows = self._usual.run(texts)
        is_same = self._wide.run(texts).tobytes() == rows.tobytes()
        self._has_same_bits[bucket] = is_same
        if not is_same:
            logger.warning(
                "texts of %d tokens stay with one thread: on more their vectors would be others",
                bucket,
            )
        return rows
