"""What a checkpoint folder says of itself, read from its JSON files. Runs none of it.

Folders follow the layout of sentence-transformers. What cannot be exported faithfully is refused
here, with the reason: decoders, code that comes with the weights, unknown modules.
"""

import hashlib
import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from embedserve.errors import ModelError

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"

# Encoders whose graphs take token ids and a mask; the number is how many positions the position
# table keeps for itself (RoBERTa and its kin count from the padding id on).
ENCODERS = {"bert": 0, "roberta": 2, "xlm-roberta": 2, "mpnet": 2}

# Modules of modules.json, by the last part of their type.
_MODULES = ("Transformer", "Pooling", "Normalize")

_POOLINGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}

# Tensors in the file that no embedding passes through.
_UNUSED = ("pooler.", "position_ids")


@dataclass(frozen=True)
class Architecture:
    """Figures that clients show."""

    parameter_count: int
    block_count: int
    head_count: int
    feed_forward_length: int
    context_length: int
    """Positions that the network has; `max_tokens` may be less."""
    vocabulary_size: int
    layer_norm_epsilon: float


@dataclass(frozen=True)
class Facts:
    """All that export and manifest need to know of a checkpoint."""

    family: str
    architecture: Architecture
    pooling: str
    max_tokens: int
    dimensions: int
    query_prompt: str = ""
    document_prompt: str = ""


def read_facts(folder: Path) -> Facts:
    """Read and judge a checkpoint; raise ModelError for one that cannot be served."""
    for name in (WEIGHTS, TOKENIZER, "config.json", "modules.json"):
        if not (folder / name).is_file():
            raise ModelError(
                f"Checkpoint `{folder}` has no `{name}`. Use a checkpoint in the layout of "
                "sentence-transformers, with safetensors weights and a fast tokenizer."
            )
    config = _read_object(folder, "config.json")
    family = _judge_config(folder, config)
    try:
        architecture = _architecture(folder, config, family)
        dimensions = int(config["hidden_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"`{folder / 'config.json'}` is incomplete: {error}.") from error
    prompts = _read_object(folder, "config_sentence_transformers.json").get("prompts") or {}
    return Facts(
        family=family,
        architecture=architecture,
        pooling=_pooling(folder),
        max_tokens=_max_tokens(folder, architecture.context_length),
        dimensions=dimensions,
        query_prompt=prompts.get("query", ""),
        document_prompt=prompts.get("document", prompts.get("passage", "")),
    )


def weights_sha256(folder: Path) -> str:
    """Return the sha256 of the checkpoint's weights, 64 hex digits."""
    with (folder / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _judge_config(folder: Path, config: dict[str, Any]) -> str:
    family = str(config.get("model_type"))
    names = " ".join(config.get("architectures") or [])
    if "auto_map" in config:
        raise ModelError(f"Checkpoint `{folder}` brings its own code, which is never run.")
    if config.get("is_decoder") or "CausalLM" in names:
        raise ModelError(f"Checkpoint `{folder}` is a decoder; only encoders can be served.")
    if family not in ENCODERS:
        known = ", ".join(ENCODERS)
        raise ModelError(f"Checkpoint `{folder}` is of type `{family}`; these are known: {known}.")
    return family


def _architecture(folder: Path, config: dict[str, Any], family: str) -> Architecture:
    return Architecture(
        parameter_count=_parameter_count(folder / WEIGHTS),
        block_count=int(config["num_hidden_layers"]),
        head_count=int(config["num_attention_heads"]),
        feed_forward_length=int(config["intermediate_size"]),
        context_length=int(config["max_position_embeddings"]) - ENCODERS[family],
        vocabulary_size=int(config["vocab_size"]),
        layer_norm_epsilon=float(config.get("layer_norm_eps", 1e-12)),
    )


def _parameter_count(weights: Path) -> int:
    """Add up the tensors that the safetensors header lists (8 bytes of length, then JSON)."""
    with weights.open("rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > weights.stat().st_size:
                raise ValueError("header longer than the file")
            header = json.loads(file.read(length))
        except (struct.error, ValueError) as error:
            raise ModelError(
                f"`{weights}` is not a whole safetensors file. Fetch it again."
            ) from error
    header.pop("__metadata__", None)
    return sum(
        prod(tensor["shape"])
        for name, tensor in header.items()
        if not any(unused in name for unused in _UNUSED)
    )


def _pooling(folder: Path) -> str:
    modules = json.loads((folder / "modules.json").read_text("utf-8"))
    for module in modules:
        kind = str(module.get("type")).rpartition(".")[2]
        if kind not in _MODULES:
            raise ModelError(f"Checkpoint `{folder}` has a module `{kind}`, which is not known.")
        if kind == "Pooling":
            config = _read_object(folder, f"{module['path']}/config.json")
            return _pooling_mode(folder, config)
    raise ModelError(f"Checkpoint `{folder}` does not say how tokens are pooled.")


def _pooling_mode(folder: Path, config: dict[str, Any]) -> str:
    # Two spellings: one flag for each mode, or (newer) the modes by name.
    chosen = [
        name for name, on in config.items() if name.startswith("pooling_mode_") and on is True
    ]
    modes = [_POOLINGS.get(name, name) for name in chosen]
    if "pooling_mode" in config:
        named = config["pooling_mode"]
        modes = [named] if isinstance(named, str) else list(named)
    if len(modes) != 1 or modes[0] not in _POOLINGS.values():
        raise ModelError(f"Checkpoint `{folder}` pools by {modes}; `mean` or `cls` are known.")
    if config.get("include_prompt") is False:
        raise ModelError(f"Checkpoint `{folder}` pools without its prompt, which is not known.")
    return str(modes[0])


def _max_tokens(folder: Path, context_length: int) -> int:
    # tokenizer.json may carry a shorter truncation left over from training; it does not count.
    told = _read_object(folder, "sentence_bert_config.json").get("max_seq_length")
    told = told or _read_object(folder, "tokenizer_config.json").get("model_max_length")
    return min(int(told or context_length), context_length)


def _read_object(folder: Path, name: str) -> dict[str, Any]:
    """Return the object in a JSON file; an absent file is an empty object."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(f"`{path}` is not JSON: {error}.") from error
    return value if isinstance(value, dict) else {}
