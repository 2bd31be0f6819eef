"""What is embedded for a chunk: the chunk, with where it stands in front."""

from collections.abc import Sequence

from embedserve.engine.encoder import Encoder
from embedserve.ingest.chunk import prefix
from embedserve.services.token_budget import TokenBudget
from embedserve.types import Chunk


def embedded_texts(
    encoder: Encoder, budget: TokenBudget, title: str, chunks: Sequence[Chunk]
) -> list[str]:
    """Put prompt, title, headings and column names in front, within the model's length."""
    places = dict.fromkeys((part.heading, part.table_header) for part in chunks)
    prefixes = [(place, prefix(title, *place)) for place in places]
    offsets = encoder.offsets([text for _, text in prefixes])
    fitted = {
        place: text[: spans[budget.prefix, 0]] + "\n" if len(spans) > budget.prefix else text
        for (place, text), spans in zip(prefixes, offsets, strict=True)
    }
    prompt = encoder.spec.document_prompt
    return [prompt + fitted[part.heading, part.table_header] + part.text for part in chunks]
