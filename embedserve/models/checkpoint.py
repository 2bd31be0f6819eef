"""What a checkpoint folder says of itself, read from its JSON files. Runs none of it.

Folders follow the layout of sentence-transformers, or of transformers alone where the user adds
what is missing. What cannot be exported faithfully is refused here, with the reason: decoders,
code that comes with the weights, unknown modules.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embedserve.errors import ModelError
from embedserve.models.families import DECODERS, FAMILIES, Family
from embedserve.models.json_file import read_object
from embedserve.models.modules import POOLINGS, Head, Module, read_head
from embedserve.models.tokenizer_file import TOKENIZER as TOKENIZER
from embedserve.models.weights import WEIGHTS as WEIGHTS
from embedserve.models.weights import count_parameters, ready_graph
from embedserve.models.weights import weights_sha256 as weights_sha256

# transformers writes 1e30 where a tokenizer knows no limit.
_NO_LIMIT = 1_000_000_000

# Tensors in the file that no embedding passes through: heads for training, decoders, buffers.
_UNUSED = ("position_ids", "decoder.", "lm_head", "cls.")
_UNUSED_BY_EMBEDDINGS = (*_UNUSED, "pooler.", "classifier")

# Both are served: the sigmoid as the score, the logit as the raw score.
_SCORE_ACTIVATIONS = ("Sigmoid", "Identity")

_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


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
class Overrides:
    """What the user says of a checkpoint; it goes before what the files say."""

    pooling: str | None = None
    max_tokens: int | None = None
    query_prompt: str | None = None
    document_prompt: str | None = None
    ignores_onnx: bool = False
    """Whether to export from the weights although there is a ready ONNX file."""


@dataclass(frozen=True)
class Facts:
    """All that export and manifest need to know of a checkpoint."""

    kind: Literal["embedding", "reranker"]
    family: str
    architecture: Architecture
    pooling: str
    """`none` for a reranker."""
    max_tokens: int
    dimensions: int
    """Columns of the graph's output; 1 for a reranker."""
    pad_token_id: int
    """What fills a row up to its bucket; some families compute positions from it."""
    modules: tuple[Module, ...] = ()
    """What follows the pooling, in order."""
    query_prompt: str = ""
    document_prompt: str = ""


def read_facts(folder: Path, overrides: Overrides | None = None) -> Facts:
    """Read and judge a checkpoint.

    Raises ModelError for one that cannot be served, and for one that does not say enough; the
    message then names the flag that says it.
    """
    told = overrides or Overrides()
    _require_files(folder, told)
    config = read_object(folder / "config.json")
    family_name = _judge_config(folder, config, told)
    family = FAMILIES[family_name]
    head = read_head(folder)
    kind = _kind(folder, config, head, told)
    pooling = "none" if kind == "reranker" else _pooling(folder, head, told)
    query_prompt, document_prompt = _prompts(folder, told)
    try:
        positions = _positions(config, family)
        max_tokens = _max_tokens(folder, positions, told)
        unused = _UNUSED if kind == "reranker" else _UNUSED_BY_EMBEDDINGS
        parameters = _parameter_count(folder, head, unused)
        return Facts(
            kind=kind,
            family=family_name,
            architecture=_architecture(config, family, parameters, positions or max_tokens),
            pooling=pooling,
            max_tokens=max_tokens,
            dimensions=_dimensions(kind, head, int(config[family.hidden_size])),
            pad_token_id=int(_first(config.get("pad_token_id"), family.pad_token_id)),
            modules=head.modules,
            query_prompt=query_prompt,
            document_prompt=document_prompt,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"`{folder / 'config.json'}` is incomplete: {error}.") from error


def _architecture(
    config: dict[str, Any], family: Family, parameters: int, context_length: int
) -> Architecture:
    return Architecture(
        parameter_count=parameters,
        block_count=int(config[family.blocks]),
        head_count=int(config[family.heads]),
        feed_forward_length=int(config[family.feed_forward]),
        context_length=context_length,
        vocabulary_size=int(config["vocab_size"]),
        layer_norm_epsilon=float(config.get(family.epsilon, 1e-12)),
    )


def _require_files(folder: Path, told: Overrides) -> None:
    if not (folder / "config.json").is_file():
        raise ModelError(f"Checkpoint `{folder}` has no `config.json`. Fetch it again.")
    if not (folder / TOKENIZER).is_file():
        raise ModelError(
            f"Checkpoint `{folder}` has no `{TOKENIZER}`, so its tokenizer is not a fast one. "
            "Write one with transformers: `AutoTokenizer.from_pretrained(folder)"
            ".save_pretrained(folder)`."
        )
    if not isinstance(read_object(folder / TOKENIZER).get("model"), dict):
        raise ModelError(f"`{folder / TOKENIZER}` is not a tokenizer. Fetch it again.")
    if (folder / WEIGHTS).is_file() or (ready_graph(folder) and not told.ignores_onnx):
        return
    raise ModelError(
        f"Checkpoint `{folder}` has no `{WEIGHTS}` and no `onnx/model.onnx`. Weights in other "
        "formats can run code when they are opened; convert them to safetensors first."
    )


def _judge_config(folder: Path, config: dict[str, Any], told: Overrides) -> str:
    name = str(config.get("model_type"))
    architectures = " ".join(config.get("architectures") or [])
    if config.get("is_decoder") or "CausalLM" in architectures or name in DECODERS:
        raise ModelError(
            f"Checkpoint `{folder}` is a decoder (`{name}`): its tokens see only what stands "
            "before them. Only encoders can be served."
        )
    is_ready = ready_graph(folder) is not None and not told.ignores_onnx
    # A ready graph needs none of the code that `auto_map` names: nothing of it is ever loaded.
    if "auto_map" in config and not is_ready:
        raise ModelError(
            f"Checkpoint `{folder}` brings its own code, which is never run. It can be served if "
            "its repository has a ready `onnx/model.onnx`."
        )
    if name not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ModelError(f"Checkpoint `{folder}` is of type `{name}`; these are known: {known}.")
    if FAMILIES[name].is_ready_only and not is_ready:
        raise ModelError(
            f"Checkpoint `{folder}` is of type `{name}`, which is only served from a ready "
            "`onnx/model.onnx`; there is none."
        )
    return name


def _kind(
    folder: Path, config: dict[str, Any], head: Head, told: Overrides
) -> Literal["embedding", "reranker"]:
    architectures = config.get("architectures") or []
    is_classifier = any(name.endswith("ForSequenceClassification") for name in architectures)
    if not is_classifier or head.pooling or told.pooling:
        return "embedding"
    labels = len(config.get("id2label") or ()) or int(config.get("num_labels") or 2)
    if labels != 1:
        raise ModelError(
            f"Checkpoint `{folder}` is a classifier with {labels} labels; a reranker has one."
        )
    _check_activation(folder, config)
    return "reranker"


def _check_activation(folder: Path, config: dict[str, Any]) -> None:
    """Refuse a reranker whose score is neither its logit nor the logit's sigmoid.

    Three places, as sentence-transformers' CrossEncoder has had them; without any it is Sigmoid.
    """
    named = _first(
        read_object(folder / "config_sentence_transformers.json").get("activation_fn"),
        (config.get("sentence_transformers") or {}).get("activation_fn"),
        config.get("sbert_ce_default_activation_function"),
        "Sigmoid",
    )
    activation = str(named).rpartition(".")[2]
    if activation not in _SCORE_ACTIVATIONS:
        raise ModelError(
            f"Checkpoint `{folder}` turns its logit into a score by `{activation}`; a reranker can "
            f"be served with one of: {', '.join(_SCORE_ACTIVATIONS)}."
        )


def _pooling(folder: Path, head: Head, told: Overrides) -> str:
    pooling = told.pooling or head.pooling
    known = ", ".join(POOLINGS)
    if pooling is None:
        raise ModelError(
            f"Checkpoint `{folder}` does not say how its tokens are pooled. Look it up in the "
            f"model's card and give `--pooling` with one of: {known}."
        )
    if pooling not in POOLINGS:
        raise ModelError(f"Unknown pooling `{pooling}`. Give `--pooling` with one of: {known}.")
    return pooling


def _positions(config: dict[str, Any], family: Family) -> int | None:
    if family.positions is None:
        return None
    return int(config[family.positions]) - family.positions_kept


def _max_tokens(folder: Path, positions: int | None, told: Overrides) -> int:
    if told.max_tokens is not None:
        if told.max_tokens < 1 or (positions and told.max_tokens > positions):
            raise ModelError(
                f"`--max-tokens {told.max_tokens}` does not fit checkpoint `{folder}`, which has "
                f"{positions or 'any number of'} positions."
            )
        return told.max_tokens
    # tokenizer.json may carry a shorter truncation left over from training; it does not count.
    length = read_object(folder / "sentence_bert_config.json").get("max_seq_length")
    length = length or read_object(folder / "tokenizer_config.json").get("model_max_length")
    limits = [int(limit) for limit in (length, positions) if limit and limit < _NO_LIMIT]
    if not limits:
        raise ModelError(
            f"Checkpoint `{folder}` does not say how long a text may be. Look it up in the model's "
            "card and give `--max-tokens`."
        )
    return min(limits)


def _prompts(folder: Path, told: Overrides) -> tuple[str, str]:
    """Return the prompts of queries and of documents, found as sentence-transformers does."""
    config = read_object(folder / "config_sentence_transformers.json")
    prompts = config.get("prompts") or {}
    default = prompts.get(config.get("default_prompt_name"))
    query = _first(told.query_prompt, prompts.get("query"), default)
    found = [prompts.get(name) for name in _DOCUMENT_PROMPTS]
    document = _first(told.document_prompt, *found, default)
    if prompts and query is None and document is None:
        names = ", ".join(f"`{name}`" for name in prompts)
        raise ModelError(
            f"Checkpoint `{folder}` has prompts named {names}, and does not say which are for "
            "queries and which for documents. Give `--query-prompt` and `--document-prompt`."
        )
    return query or "", document or ""


def _dimensions(kind: str, head: Head, hidden_size: int) -> int:
    if kind == "reranker":
        return 1
    given = [module.dimensions for module in head.modules if module.dimensions]
    return given[-1] if given else hidden_size


def _parameter_count(folder: Path, head: Head, unused: tuple[str, ...]) -> int:
    total = count_parameters(folder, leave_out=unused)
    for module in head.modules:
        if module.folder:
            total += count_parameters(folder / module.folder, leave_out=())
    return total


def _first(*values: Any) -> Any:  # noqa: ANN401  # raw JSON
    return next((value for value in values if value is not None), None)
