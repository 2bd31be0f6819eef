"""Models known by a short name: where they come from and what is known about them.

The rows are data, in library.toml; this is how they are read and found. A model without a row can
still be pulled as `hf.co/org/repo`, or from a folder.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from embedserve.models.names import (
    DEFAULT_HOST,
    DEFAULT_NAMESPACE,
    DEFAULT_TAG,
    HUB_HOST,
    ModelName,
    split_recipe,
)


@dataclass(frozen=True)
class KnownModel:
    """One set of weights of the library; every tag and alias names the same."""

    name: str
    tags: tuple[str, ...]
    """Without a precision: `22m` also answers to `22m-fp16`."""
    repository: str
    """`organisation/repository` on the model hub."""
    kind: Literal["embedding", "reranker"]
    family: str
    """`model_type` of the checkpoint's config.json, with hyphens."""
    max_tokens: int
    """Longest text that sentence-transformers encodes whole, special tokens included."""
    licence: str
    """SPDX identifier."""
    revision: str | None = None
    """Hub commit to fetch; None: what `main` is at the time of the pull."""
    aliases: tuple[str, ...] = ()
    """Other names for `name` with the tag `latest`."""
    pooling: Literal["mean", "cls"] | None = None
    """None for rerankers, which answer with a score."""
    dimensions: int | None = None
    """None for rerankers."""
    matryoshka_dimensions: tuple[int, ...] = ()
    """Shorter vectors that the model was trained for, longest first."""
    is_normalized: bool = True
    """Whether the checkpoint itself ends in a normalization; what is served always does."""
    query_prompt: str = ""
    document_prompt: str = ""
    needs_ready_onnx: bool = False
    """Whether only the repository's own ONNX file can be served: the weights need code that comes
    with them, which is never run, or are pickled."""
    layer_norm_before_cut: bool = False
    """Whether vectors go through a layer norm before they are cut to fewer dimensions."""
    weights_sha256: str | None = None
    """sha256 of `model.safetensors` at that commit, where it is known."""
    bundled_package: str | None = None
    """Python package that carries the checkpoint in its folder `model`."""


@cache
def library() -> tuple[KnownModel, ...]:
    """Read every row, in the order of the file."""
    text = files("embedserve.models").joinpath("library.toml").read_text("utf-8")
    return tuple(_row(values) for values in tomllib.loads(text)["model"])


def find_known(name: ModelName) -> KnownModel | None:
    """Return the row that `name` stands for, by short name, alias or `hf.co/org/repo`.

    A precision at the end of the tag does not count: `all-minilm:22m-fp16` is `all-minilm:22m`.
    """
    host, namespace, model, tag = name.key
    return _rows_by_key().get((host, namespace, model, split_recipe(tag)[0]))


def spellings(row: KnownModel, recipe: str | None = None) -> list[ModelName]:
    """List every name under which the weights of `row` may be installed, in that precision.

    Without a recipe these are the names that leave the precision open.
    """
    short = [(row.name, tag) for tag in row.tags]
    short += [(alias, DEFAULT_TAG) for alias in row.aliases]
    names = [ModelName(DEFAULT_HOST, DEFAULT_NAMESPACE, model, tag) for model, tag in short]
    namespace, _, model = row.repository.partition("/")
    names.append(ModelName(HUB_HOST, namespace, model, DEFAULT_TAG))
    if recipe is None:
        return names
    return [spelled for name in names for spelled in _in_precision(name, recipe)]


@cache
def _rows_by_key() -> dict[tuple[str, str, str, str], KnownModel]:
    return {name.key: row for row in library() for name in spellings(row)}


def _in_precision(name: ModelName, recipe: str) -> list[ModelName]:
    tags = [f"{name.tag}-{recipe}"] + ([recipe] if name.tag == DEFAULT_TAG else [])
    return [ModelName(name.host, name.namespace, name.model, tag) for tag in tags]


def _row(values: dict[str, Any]) -> KnownModel:
    frozen: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
    }
    return KnownModel(**frozen)
