"""The job that gives an index the vectors of another model, from the texts of its chunks.

Nothing is read from the documents again: the chunks stay as they were cut. The former vectors serve
until all new ones are there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from embedserve.engine.encoder import Encoder
from embedserve.errors import ConflictError
from embedserve.services.definitions import IndexDefinition
from embedserve.services.embedded_text import embedded_texts, text_hash
from embedserve.services.encoders import Encoders
from embedserve.services.index_worker import IndexWorker
from embedserve.services.token_budget import TokenBudget, chunk_budget
from embedserve.store.catalog import Catalog
from embedserve.store.model_changes import ModelChange
from embedserve.types import Index, Job

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

        Raises ConflictError when the model is not the one that was asked for any more.
        """
        for _ in range(TRIES):
            self.stop_if_interrupted()
            change = self.catalog.model_changes.get(index.id)
            if change is None:
                return
            encoder = self._encoder(index, change)
            definition = IndexDefinition.model_validate_json(change.definition)
            budget = chunk_budget(encoder, definition)
            if self._embed_all(job, change, encoder, budget) and self._switch(index, change):
                self.index_worker.wake()
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
        return encoder

    def _embed_all(
        self, job: Job, change: ModelChange, encoder: Encoder, budget: TokenBudget
    ) -> bool:
        """Embed what has no new vector; False when something else is asked for by now."""
        while chunks := self.catalog.model_changes.waiting(change.index_id, limit=PAGE):
            self.stop_if_interrupted()
            texts: list[str] = []
            for title, group in groupby(chunks, key=lambda chunk: chunk.title):
                texts += embedded_texts(encoder, budget, title, list(group))
            by_hash = {text_hash(text): text for text in texts}
            rows = self.catalog.model_changes.known(change, list(by_hash))
            missing = [key for key in by_hash if key not in rows]
            computed = encoder.encode([by_hash[key] for key in missing])
            rows |= dict(zip(missing, computed, strict=True))
            hashes = [text_hash(text) for text in texts]
            vectors = np.stack([rows[key] for key in hashes])
            if not self.catalog.model_changes.keep(change, chunks, hashes, vectors):
                return False
            self.catalog.jobs.add_chunks_embedded(job.id, len(missing))
        return True

    def _switch(self, index: Index, change: ModelChange) -> bool:
        # In the thread that writes the vector index, where no batch of former vectors is in hand.
        return self.index_worker.ask(
            lambda: self.catalog.model_changes.carry_out(index, change)
        ).result()
