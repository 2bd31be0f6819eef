"""Figures of networks of two or three layers, one for each family. Data only."""

from typing import Any

MAX_TOKENS = 64
HIDDEN = 32

_BERT: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": MAX_TOKENS,
}
# Their position tables keep two rows for themselves; ids as in the published vocabularies.
_ROBERTA = _BERT | {
    "max_position_embeddings": MAX_TOKENS + 2,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", _BERT),
    "roberta": ("Roberta", _ROBERTA | {"type_vocab_size": 1}),
    "xlm-roberta": ("XLMRoberta", _ROBERTA | {"type_vocab_size": 1}),
    "camembert": ("Camembert", _ROBERTA | {"type_vocab_size": 1}),
    "mpnet": ("MPNet", _ROBERTA),
    "distilbert": (
        "DistilBert",
        {
            "dim": HIDDEN,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 64,
            "max_position_embeddings": MAX_TOKENS,
        },
    ),
    # Windows far shorter than the texts, so that padding lies outside of them.
    "modernbert": (
        "ModernBert",
        _BERT
        | {
            "num_hidden_layers": 3,
            "global_attn_every_n_layers": 3,
            "local_attention": 8,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "cls_token_id": 0,
            "sep_token_id": 2,
            "reference_compile": False,
        },
    ),
    "deberta-v2": (
        "DebertaV2",
        _BERT
        | {
            "relative_attention": True,
            "position_buckets": 16,
            "max_relative_positions": -1,
            "pos_att_type": ["p2c", "c2p"],
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    ),
    "t5": (
        "T5",
        {
            "d_model": HIDDEN,
            "d_kv": 8,
            "num_layers": 2,
            "num_heads": 4,
            "d_ff": 64,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 20,
        },
    ),
}
