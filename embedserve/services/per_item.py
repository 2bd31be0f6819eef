"""Requests of which some texts may fail, each with its reason, while the others are embedded."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

from embedserve.errors import InvalidRequestError, NotFiniteError
from embedserve.services.embedding import Embeddings, EmbeddingService, EmbedRequest


@dataclass(frozen=True)
class EmbeddedItems:
    """What came of each text."""

    embeddings: Embeddings
    """Of the texts that did not fail, in their order."""
    positions: tuple[int, ...]
    """Where those texts stand in the request."""
    failures: Mapping[int, str]
    """Why the others failed, by their position."""


async def embed_items(
    embedding: EmbeddingService, request: EmbedRequest, known: Mapping[int, str]
) -> EmbeddedItems:
    """Embed all texts but the failures that are `known`, and those that turn out to be at fault.

    Raises what `EmbeddingService.embed` raises for anything that is not the fault of one text.
    """
    failures = dict(known)
    deadline_s = None if request.timeout_s is None else time.monotonic() + request.timeout_s
    while True:
        positions = tuple(i for i in range(len(request.texts)) if i not in failures)
        left_s = None if deadline_s is None else max(deadline_s - time.monotonic(), 1e-3)
        texts = [request.texts[i] for i in positions]
        try:
            result = await embedding.embed(replace(request, texts=texts, timeout_s=left_s))
        except (InvalidRequestError, NotFiniteError) as error:
            if not error.positions:
                raise
            # At least one fewer each time, so this comes to an end; all of one kind go at once.
            failures |= {positions[i]: error.message for i in error.positions}
            continue
        return EmbeddedItems(result, positions, dict(sorted(failures.items())))
