"""A model as the engine sees it, and what it takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# In quotes: commands need the nouns, and numpy alone takes longer to load than all of these.
Vectors: TypeAlias = "NDArray[np.float32]"
"""(count, dimensions) float32, each row of unit length."""

TokenIds: TypeAlias = "NDArray[np.int64]"
"""(length,) int64, special tokens included."""

Lane = Literal["small", "bulk"]
"""Queries and small requests go ahead of large requests and ingestion."""

Arithmetic = Literal["f32", "bf16", "f16"]

ModelKind = Literal["embedding", "reranker"]
"""What a model gives: vectors of texts, or scores of a query with documents."""
InputType = Literal["query", "document"]  # what a text is for: a prompt goes in front of each


@dataclass(frozen=True)
class BatchTokens:
    """How many tokens one run of the engine carries at most; a longer text runs alone."""

    usual: int = 256
    bulk: int = 1024
    """Of large requests and ingestion while it is quiet; no less than `usual`."""


GRAPH_OUTPUTS = ("sentence_embedding", "score")
"""What the graph of an embedding model or of a reranker calls its one output."""


@dataclass(frozen=True)
class EncoderSpec:
    """The files and facts that turn text into vectors; all verified before use."""

    artefact: str
    """64 hex digits that name weights, tokenizer, recipe and length together."""
    onnx_path: Path
    """Graph: input_ids, attention_mask (and token_type_ids) (batch, length) int64 ->
    sentence_embedding (batch, dimensions) float32, pooled and of unit length; of a reranker
    score (batch, 1) float32, a logit for each pair."""
    tokenizer_path: Path
    """A `tokenizer.json`; its own padding and truncation settings are not used."""
    max_tokens: int
    """Longest input, special tokens included."""
    dimensions: int
    query_prompt: str = ""
    document_prompt: str = ""
    engine: str = "onnxruntime"
    """Name in `engine.backend.BACKENDS`."""
    arithmetic: Arithmetic = "f32"
    """What the engine computes the graph's float32 operations in. Operations that the graph
    has in other types (int8, float16) stay what they are."""
    pad_token_id: int = 0
    """What an engine that pads puts behind a text; the attention mask leaves it out."""
    dynamic_group: int = 0
    """Features of a token row that share a scale where the engine rounds the inputs of 8-bit
    weights to 8 bits by itself; 0: it does not."""
    matryoshka_dimensions: tuple[int, ...] = ()
    """Shorter vectors that the model was trained for."""
    layer_norm_before_cut: bool = False
    """Whether vectors are standardized over their features before they are cut."""
    recipe: str = ""
    """Name of what was done to the weights, for people."""
    kind: ModelKind = "embedding"
    input_type: InputType | None = None
    """Whose prompt texts of requests get that do not say what they are; None: none."""


class TokenOffsets(Protocol):
    """Tell where each token of a text begins and ends, without special tokens.

    A third column, where there is one, is the token's id. Given only by tokenizers to which spaces
    and line breaks are boundaries, whatever stands beside them.
    """

    def __call__(self, texts: Sequence[str]) -> "list[NDArray[np.int64]]":
        """Return one (tokens, 2 or 3) array of character offsets for each text."""
        ...
