"""One installed model, described for the dialects and the command line."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from embedserve.models.fidelity import failed_figures
from embedserve.models.installed import InstalledModel
from embedserve.models.manifest import Manifest
from embedserve.services.canary import CanaryCheck

POOLING_TYPES = {"mean": 1, "cls": 2, "lasttoken": 3}
"""Numbers that Ollama's `model_info` uses."""
CAPABILITIES = {"embedding": "embedding", "reranker": "rerank"}
NOT_LOADED = "not checked yet: the model is loaded on first use"


@dataclass(frozen=True)
class ModelReport:
    """One installed model, in the words of the dialects."""

    name: str
    namespace: str
    family: str
    parameter_size: str
    capability: str
    """`embedding` or `rerank`."""
    recipe: str
    engine: str
    licence: str
    max_tokens: int
    dimensions: int
    size_bytes: int
    digest: str
    modified_at: str
    parent: str
    """The model it was made from; empty for a pulled one."""
    parameters: dict[str, int | str]
    """Those that `create` takes, as far as they are set."""
    model_info: dict[str, Any]
    facts: dict[str, Any]
    """What Ollama's dialect has no place for: recipe, fidelity, source."""

    @property
    def created(self) -> int:
        """Seconds since 1970."""
        return int(datetime.fromisoformat(self.modified_at).timestamp())


def describe_model(model: InstalledModel, canary: CanaryCheck | None) -> ModelReport:
    """Describe a model; `canary` is None while it is not loaded."""
    manifest = model.manifest
    return ModelReport(
        name=model.name.display,
        namespace=model.name.namespace,
        family=manifest.family,
        parameter_size=_millions(manifest.architecture.parameter_count),
        capability=CAPABILITIES[manifest.kind],
        recipe=manifest.recipe,
        engine=manifest.runtime.engine,
        licence=manifest.licence,
        max_tokens=manifest.max_tokens,
        dimensions=manifest.dimensions,
        size_bytes=model.size_bytes,
        digest=manifest.digest,
        modified_at=model.modified_at,
        parent=manifest.parent,
        parameters=_parameters(manifest),
        model_info=_model_info(manifest),
        facts=_facts(model, canary),
    )


def _facts(model: InstalledModel, canary: CanaryCheck | None) -> dict[str, Any]:
    manifest = model.manifest
    return {
        "name": model.name.display,
        "kind": manifest.kind,
        "recipe": manifest.recipe,
        "method": manifest.method,
        **asdict(manifest.runtime),
        "artefact": manifest.artefact,
        "source": manifest.source,
        "revision": manifest.revision,
        "licence": manifest.licence,
        "weights_sha256": manifest.weights_sha256,
        "size_bytes": model.size_bytes,
        "pooling": manifest.pooling,
        "max_tokens": manifest.max_tokens,
        "dimensions": manifest.dimensions,
        "matryoshka_dimensions": list(manifest.matryoshka_dimensions),
        "layer_norm_before_cut": manifest.layer_norm_before_cut,
        "query_prompt": manifest.query_prompt,
        "document_prompt": manifest.document_prompt,
        "parent": manifest.parent,
        "input_type": manifest.input_type,
        "installed_at": manifest.created_at,
        "canary": canary.words if canary else NOT_LOADED,
        "fidelity": asdict(manifest.fidelity),
        "below_gate": failed_figures(manifest.fidelity, manifest.recipe),
        "performance": asdict(manifest.performance),
        "candidates": [asdict(one) for one in manifest.candidates],
    }


def _parameters(manifest: Manifest) -> dict[str, int | str]:
    texts = {
        "query_prompt": manifest.query_prompt,
        "document_prompt": manifest.document_prompt,
        "input_type": manifest.input_type or "",
    }
    return {"num_ctx": manifest.max_tokens, **{k: v for k, v in texts.items() if v}}


def _model_info(manifest: Manifest) -> dict[str, Any]:
    """Return the facts under the keys that Ollama's clients look for."""
    family, facts = manifest.family, manifest.architecture
    return {
        "general.architecture": family,
        "general.parameter_count": facts.parameter_count,
        f"{family}.attention.causal": False,
        f"{family}.attention.head_count": facts.head_count,
        f"{family}.block_count": facts.block_count,
        f"{family}.context_length": manifest.max_tokens,
        f"{family}.embedding_length": manifest.dimensions,
        f"{family}.feed_forward_length": facts.feed_forward_length,
        f"{family}.pooling_type": POOLING_TYPES.get(manifest.pooling),
        f"{family}.normalize_embeddings": True,
    }


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.2f}M"
