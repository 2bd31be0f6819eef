"""How a model's length is shared between a chunk and what stands in front of it."""

from dataclasses import dataclass

from embedserve.engine.encoder import Encoder
from embedserve.errors import DefinitionError
from embedserve.services.definitions import DEFAULT_CHUNK_TOKENS, IndexDefinition
from embedserve.services.reading import prompt_of


@dataclass(frozen=True)
class TokenBudget:
    """How the model's length is shared out; together it is never exceeded."""

    prefix: int
    """Tokens of title and headings in front of a chunk."""
    chunk: int
    """Tokens of the chunk itself."""


# Special tokens, and the few by which a text's count changes when it stands alone.
SPARE_TOKENS = 10


def token_budget(model_tokens: int, prompt_tokens: int, wanted: int | None) -> TokenBudget:
    """Share out a model's length; raise DefinitionError when `wanted` does not fit."""
    room = model_tokens - prompt_tokens - SPARE_TOKENS
    prefix_tokens = min(100, room // 3)
    largest = room - prefix_tokens
    if wanted and wanted > largest:
        raise DefinitionError(
            f"`chunking.max_tokens` is {wanted}, but the index's model takes {model_tokens} "
            f"tokens, of which a chunk may use {largest}. Lower it, or choose a longer model."
        )
    return TokenBudget(prefix_tokens, wanted or min(DEFAULT_CHUNK_TOKENS, largest))


def chunk_budget(encoder: Encoder, definition: IndexDefinition) -> TokenBudget:
    """Return the token budget of an index; raise DefinitionError when its chunks do not fit."""
    [prompt] = encoder.offsets([prompt_of(encoder.spec, "document")])
    return token_budget(encoder.spec.max_tokens, len(prompt), definition.chunking.max_tokens)
