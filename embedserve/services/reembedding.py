"""The job that gives an index the vectors of another model, from the texts of its chunks.

Nothing is read from the documents again: the chunks stay as they were cut. The former vectors serve
until all new ones are there.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass, replace
from threading import Event
from typing import TypeVar

import numpy as np

from embedserve.engine.encoder import Encoder
from embedserve.engine.tokenizer import TokenizedText
from embedserve.errors import ConflictError
from embedserve.services.definitions import stored_definition
from embedserve.services.embedded_text import text_hash, texts_of
from embedserve.services.encoders import Encoders
from embedserve.services.index_worker import INTERRUPT_POLL_S, IndexWorker
from embedserve.services.origins import VectorOrigins
from embedserve.services.token_budget import TokenBudget, chunk_budget
from embedserve.store.catalog import Catalog
from embedserve.store.model_changes import ModelChange
from embedserve.types import FileResult, Index, Job, Vectors, Work

logger = logging.getLogger(__name__)

T = TypeVar("T")

PAGE = 256  # chunks whose texts and vectors are in memory at once
TRIES = 5
"""How often the switch is tried: chunks may come meanwhile, from an import of a page for one."""


@dataclass(frozen=True)
class Reembedding:
    """Carry out what was asked for an index; it may be cut off anywhere and goes on from there."""

    catalog: Catalog
    encoders: Encoders
    index_worker: IndexWorker
    stop_if_interrupted: Callable[[], None]

    def run(self, job: Job, index: Index) -> None:
        """Embed every chunk anew and switch; do nothing when it was withdrawn.

        Texts that the model cuts are noted with their file in the job. Raises ConflictError when
        the model is not the one that was asked for any more, or gives other vectors here than
        those that are kept of it.
        """
        for _ in range(TRIES):
            self.stop_if_interrupted()
            change = self.catalog.model_changes.get(index.id)
            if change is None:
                return
            encoder = self._encoder(index, change)
            definition = stored_definition(change.definition)
            budget = chunk_budget(encoder, definition)
            if self._embed_all(job, change, encoder, budget) and self._switch(index, change):
                self.index_worker.hurry()
                return
        raise ConflictError(
            f"Index `{index.name}` went on changing while it was embedded anew. Put its definition "
            "again when nothing is ingested into it."
        )

    def _encoder(self, index: Index, change: ModelChange) -> Encoder:
        encoder = self.encoders.get(change.model)
        if encoder.spec.artefact != change.artefact:
            raise ConflictError(
                f"`{change.model}` was pulled in another form since index `{index.name}` was to "
                "take it. Put the index's definition again."
            )
        changed = replace(index, model=change.model, artefact=change.artefact)
        for warning in VectorOrigins(self.catalog, self.encoders).check(changed, encoder):
            logger.warning("%s", warning)
        return encoder

    def _embed_all(
        self, job: Job, change: ModelChange, encoder: Encoder, budget: TokenBudget
    ) -> bool:
        """Embed what has no new vector; False when something else is asked for by now."""
        changes, after_id = self.catalog.model_changes, 0
        while chunks := changes.waiting(change.index_id, after_id, limit=PAGE):
            self.stop_if_interrupted()
            after_id = chunks[-1].id
            texts = texts_of(encoder, budget, chunks)
            hashes = [text_hash(text) for text in texts]
            tokenized = dict(zip(hashes, encoder.tokenize(texts), strict=True))
            rows = changes.known(change, hashes)
            missing = [key for key in tokenized if key not in rows]
            rows |= dict(zip(missing, self._vectors(encoder, tokenized, missing), strict=True))
            cut = {
                chunk.path
                for chunk, key in zip(chunks, hashes, strict=True)
                if tokenized[key].is_truncated
            }
            noted = [_cut(path, change.model, encoder) for path in sorted(cut)]
            vectors = np.stack([rows[key] for key in hashes])
            if not changes.keep(change, chunks, hashes, vectors, noted=noted, job_id=job.id):
                return False
            tokens = sum(len(tokenized[key].ids) for key in missing)
            self.catalog.jobs.add_work(job.id, Work(0, len(missing), tokens))
        return True

    def _vectors(
        self, encoder: Encoder, tokenized: Mapping[str, TokenizedText], wanted: Sequence[str]
    ) -> Vectors:
        if not wanted:
            return np.empty((0, encoder.spec.dimensions), np.float32)
        texts = [tokenized[key] for key in wanted]
        return self._wait(encoder.submit(texts, lane="bulk", when_full="wait"))

    def _switch(self, index: Index, change: ModelChange) -> bool:
        # In the thread that writes the vector index, where no batch of former vectors is in hand.
        is_given_up = Event()

        def carry_out() -> bool:
            return not is_given_up.is_set() and self.catalog.model_changes.carry_out(index, change)

        try:
            return self._wait(self.index_worker.ask(carry_out))
        except BaseException:
            is_given_up.set()
            raise

    def _wait(self, future: Future[T]) -> T:
        """Return what comes, or stop with the job."""
        while True:
            try:
                return future.result(INTERRUPT_POLL_S)
            except NotYetError:
                if future.done():  # it ended with such an error itself
                    raise
                self.stop_if_interrupted()


def _cut(path: str, model: str, encoder: Encoder) -> FileResult:
    return FileResult(
        path,
        "updated",
        warnings=(
            f"Chunks of it have more tokens, with what stands before them, than `{model}` takes "
            f"({encoder.spec.max_tokens}): their end is not in their vectors. To have them cut for "
            "this model, delete the index and ingest its documents again.",
        ),
    )
