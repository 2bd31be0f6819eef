"""The kinds of encoder that can be exported, and how their config.json names things. Data only.

To add a family, add a row; `tests/tiny_models.py` then needs a model of it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One `model_type`: the keys of its figures in config.json, and what the keys leave open."""

    hidden_size: str = "hidden_size"
    blocks: str = "num_hidden_layers"
    heads: str = "num_attention_heads"
    feed_forward: str = "intermediate_size"
    positions: str | None = "max_position_embeddings"
    """None: positions are relative and no table bounds the length."""
    epsilon: str = "layer_norm_eps"
    positions_kept: int = 0
    """Rows that the position table keeps for itself: RoBERTa and its kin count positions from the
    padding id on."""
    pad_token_id: int = 0
    """Taken when config.json names none, as the family's own code does."""
    is_ready_only: bool = False
    """Whether its code is not in `transformers`, so that only a ready ONNX file can be used."""


FAMILIES = {
    "bert": Family(),
    "roberta": Family(positions_kept=2, pad_token_id=1),
    "xlm-roberta": Family(positions_kept=2, pad_token_id=1),
    "camembert": Family(positions_kept=2, pad_token_id=1),
    "mpnet": Family(positions_kept=2, pad_token_id=1),
    "distilbert": Family(
        hidden_size="dim", blocks="n_layers", heads="n_heads", feed_forward="hidden_dim"
    ),
    "modernbert": Family(epsilon="norm_eps", pad_token_id=50283),
    "deberta-v2": Family(),
    "t5": Family(
        hidden_size="d_model",
        blocks="num_layers",
        heads="num_heads",
        feed_forward="d_ff",
        positions=None,
        epsilon="layer_norm_epsilon",
    ),
    "nomic_bert": Family(
        hidden_size="n_embd",
        blocks="n_layer",
        heads="n_head",
        feed_forward="n_inner",
        positions="n_positions",
        epsilon="layer_norm_epsilon",
        is_ready_only=True,
    ),
}

# Well-known types whose tokens see only what stands before them. Others are known by their
# architecture's name; these also come under the plain name of the model.
DECODERS = frozenset(
    {
        *("bloom", "falcon", "gpt2", "gpt_neo", "gpt_neox", "gptj", "granite", "mpt", "opt"),
        *("gemma", "gemma2", "gemma3_text", "llama", "mistral", "mixtral", "stablelm"),
        *("phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe"),
    }
)
