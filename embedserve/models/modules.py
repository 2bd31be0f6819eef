"""What sentence-transformers does behind the network, read from modules.json: pooling and on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embedserve.errors import ModelError
from embedserve.models.json_file import read_object, read_objects

POOLINGS = ("mean", "cls", "lasttoken", "mean_sqrt_len_tokens", "max")

# By the last part of the name in modules.json; other activations are not needed by any model known.
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "Sigmoid")

_FLAGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_max_tokens": "max",
}


@dataclass(frozen=True)
class Module:
    """One step behind the pooling, (batch, features) -> (batch, dimensions)."""

    kind: Literal["Dense", "LayerNorm", "Normalize"]
    folder: str = ""
    """Where its weights are, below the checkpoint."""
    activation: str = "Identity"
    dimensions: int | None = None
    """Features that it gives; None: as many as it takes."""


@dataclass(frozen=True)
class Head:
    """All that follows the network."""

    pooling: str | None
    """None where the checkpoint does not say."""
    modules: tuple[Module, ...] = ()


def read_head(folder: Path) -> Head:
    """Read modules.json and what it refers to; raise ModelError for what is not known."""
    rows = read_objects(folder / "modules.json")
    if rows is None:
        return Head(None)
    kinds = [str(row.get("type")).rpartition(".")[2] for row in rows]
    paths = [str(row.get("path") or "") for row in rows]
    if any(Path(path).is_absolute() or ".." in Path(path).parts for path in paths):
        raise ModelError(f"`{folder / 'modules.json'}` points out of the checkpoint.")
    if kinds[:1] != ["Transformer"] or paths[0]:
        first = f"a module `{kinds[0]}` in `./{paths[0]}`" if kinds else "nothing"
        raise ModelError(
            f"Checkpoint `{folder}` begins with {first}; only a Transformer in the checkpoint's "
            "own folder can be exported."
        )
    if kinds[1:2] != ["Pooling"]:
        if len(kinds) == 1:
            return Head(None)
        raise ModelError(f"Checkpoint `{folder}` has a module `{kinds[1]}` where pooling belongs.")
    pooling = _pooling_mode(folder, read_object(folder / paths[1] / "config.json"))
    later = zip(kinds[2:], paths[2:], strict=True)
    return Head(pooling, tuple(_module(folder, kind, path) for kind, path in later))


def _module(folder: Path, kind: str, path: str) -> Module:
    config = read_object(folder / path / "config.json")
    if kind == "Normalize":
        return Module("Normalize")
    if kind == "LayerNorm":
        return Module("LayerNorm", path)
    if kind != "Dense":
        raise ModelError(
            f"Checkpoint `{folder}` has a module `{kind}`, which is not known. "
            "Dense, LayerNorm and Normalize may follow the pooling."
        )
    activation = str(config.get("activation_function", "Tanh")).rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise ModelError(
            f"Checkpoint `{folder}` has a Dense module with activation `{activation}`; "
            f"these are known: {', '.join(ACTIVATIONS)}."
        )
    names = {config.get("module_input_name"), config.get("module_output_name")}
    if not names <= {None, "sentence_embedding"}:
        raise ModelError(f"Checkpoint `{folder}` has a Dense module that acts on single tokens.")
    try:
        return Module("Dense", path, activation, int(config["out_features"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"`{folder / path / 'config.json'}` is incomplete: {error}.") from error


def _pooling_mode(folder: Path, config: dict[str, Any]) -> str:
    # Two spellings: one flag for each mode, or (newer) the modes by name.
    chosen = [
        name for name, on in config.items() if name.startswith("pooling_mode_") and on is True
    ]
    modes = [_FLAGS.get(name, name) for name in chosen]
    if "pooling_mode" in config:
        named = config["pooling_mode"]
        modes = [named] if isinstance(named, str) else list(named)
    if len(modes) != 1 or modes[0] not in POOLINGS:
        known = ", ".join(POOLINGS)
        raise ModelError(f"Checkpoint `{folder}` pools by {modes}; one of these is known: {known}.")
    if config.get("include_prompt") is False:
        raise ModelError(f"Checkpoint `{folder}` pools without its prompt, which is not known.")
    return str(modes[0])
