"""Requests of which some texts may fail, each with its reason, while the others are embedded."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from embedserve.errors import (
    EmbedserveError,
    InvalidRequestError,
    NotFiniteError,
    TextFailedError,
)
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
    # One deadline for all rounds, however many texts turn out to be at fault.
    async with embedding.time_for(request) as deadline_s:
        while True:
            positions = tuple(i for i in range(len(request.texts)) if i not in failures)
            asked = replace(request, texts=[request.texts[i] for i in positions])
            try:
                result = await embedding.embed_until(deadline_s, asked)
            except (InvalidRequestError, NotFiniteError, TextFailedError) as error:
                if not error.positions:
                    raise
                # At least one fewer each time, so this comes to an end; all of one kind go at once.
                for at in error.positions:
                    failures[positions[at]] = _message(error, positions[at])
                continue
            return EmbeddedItems(result, positions, dict(sorted(failures.items())))


def _message(error: EmbedserveError, position: int) -> str:
    """Return what to say of one text, which stands at `position` for the caller."""
    return error.at([position]).message if isinstance(error, TextFailedError) else error.message
