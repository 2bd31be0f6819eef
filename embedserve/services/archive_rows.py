"""Whether what an archive holds belongs together: documents, chunks, vectors of their texts.

A vector is shared by every index that holds its text, and found by the hash of that. So a hash must
be of the chunk that names it, and a vector of the text of its hash: the first is worked out for all
chunks, the second for a sample, which shows vectors in another order or of another model.
"""

from collections.abc import Iterator

import numpy as np

from embedserve.engine.encoder import Encoder
from embedserve.errors import InvalidRequestError
from embedserve.services.archive_reader import Reader
from embedserve.services.canary import CANARY_COSINE, closeness
from embedserve.services.definitions import IndexDefinition
from embedserve.services.embedded_text import text_hash, texts_of
from embedserve.services.token_budget import TokenBudget, chunk_budget
from embedserve.store.rows import from_blob
from embedserve.store.staging import Staging
from embedserve.types import Vectors

PAGE = 256  # chunks whose texts are in memory at once
SAMPLE = 16
"""Texts that are embedded again: of vectors that are half wrong, one archive in 65,536 passes."""

# With one scale for a whole batch a text's vector changes with its neighbours; the lowest cosine
# of one to the exact vector was .981 (docs/quantization.md). Another text's is far below.
VARYING = ("int8-dynamic",)
VARYING_COSINE = 0.95


def check_rows(
    reader: Reader, rows: Staging, encoder: Encoder, definition: IndexDefinition
) -> None:
    """Stage an archive's rows; raise InvalidRequestError unless they belong together."""
    rows.add_documents(reader.documents())
    rows.add_chunks(reader.chunks())
    rows.check_documents()
    budget = chunk_budget(encoder, definition)
    _check_hashes(rows, encoder, budget)
    drawn = rows.sample(SAMPLE)
    texts = {text_hash(text): text for text in texts_of(encoder, budget, drawn)}
    stored: dict[str, Vectors] = {}
    rows.add_hashes(_noted(reader, texts, stored))
    rows.check_hashes()
    computed = encoder.encode([texts[key] for key in stored])
    for key, vector in zip(stored, computed, strict=True):
        _check_vector(stored[key], vector, encoder.spec.recipe)


def _check_hashes(rows: Staging, encoder: Encoder, budget: TokenBudget) -> None:
    for page in rows.passages(page=PAGE):
        for passage, text in zip(page, texts_of(encoder, budget, page), strict=True):
            if text_hash(text) != passage.text_hash:
                raise InvalidRequestError(
                    f"The archive has a chunk of `{passage.path}` whose text_hash is not of what "
                    "this program embeds for it. It was changed, or written by a release that "
                    "embeds otherwise: ingest the documents here."
                )


def _noted(reader: Reader, wanted: dict[str, str], found: dict[str, Vectors]) -> Iterator[str]:
    """Give the hash of each vector, and keep those that are wanted."""
    for row in reader.vectors():
        if row.text_hash in wanted:
            found[row.text_hash] = from_blob(row.content)
        yield row.text_hash


def _check_vector(stored: Vectors, computed: Vectors, recipe: str) -> None:
    cosine = closeness(np.asarray(computed), stored)
    least = CANARY_COSINE if recipe not in VARYING else VARYING_COSINE
    if not cosine >= least:  # also catches NaN
        raise InvalidRequestError(
            f"The archive has a vector that its model does not give for its text (cosine "
            f"{cosine:.5f} to what comes out here). It was changed, or computed on a machine that "
            "computes otherwise: ingest the documents here."
        )
