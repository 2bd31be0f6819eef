"""Models as users see them: listed, described, pulled, removed."""

from concurrent.futures import Future
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from embedserve.models.installed import InstalledModel, list_installed, remove, resolve
from embedserve.models.manifest import Manifest
from embedserve.models.names import parse_name
from embedserve.services.encoders import Encoders
from embedserve.services.models import (
    Machine,
    Progress,
    PullRequest,
    ignore_progress,
    pull_model,
)
from embedserve.services.pulls import PullQueue
from embedserve.services.workshop import Workshop

POOLING_TYPES = {"mean": 1, "cls": 2, "lasttoken": 3}
"""Numbers that Ollama's `model_info` uses."""


@dataclass(frozen=True)
class ModelReport:
    """One installed model, in the words of the dialects."""

    name: str
    namespace: str
    family: str
    parameter_size: str
    recipe: str
    licence: str
    max_tokens: int
    dimensions: int
    size_bytes: int
    digest: str
    modified_at: str
    model_info: dict[str, Any]
    facts: dict[str, Any]
    """What Ollama's dialect has no place for: recipe, fidelity, source."""

    @property
    def created(self) -> int:
        """Seconds since 1970."""
        return int(datetime.fromisoformat(self.modified_at).timestamp())


class ModelLibrary:
    """The models of one home."""

    def __init__(self, folder: Path, encoders: Encoders, machine: Machine) -> None:
        self._folder = folder
        self._encoders = encoders
        self._machine = machine
        self._workshop = Workshop()
        self._pulls = PullQueue(self._pull)

    def reports(self) -> list[ModelReport]:
        """Describe every installed model, newest first."""
        found = [_report(model) for model in list_installed(self._folder)]
        return sorted(found, key=lambda report: report.modified_at, reverse=True)

    def report(self, name: str) -> ModelReport:
        """Describe one model; raise InvalidNameError or ModelNotFoundError."""
        return _report(resolve(self._folder, name))

    def display(self, name: str) -> str:
        """Return the name with its tag; raise InvalidNameError."""
        return parse_name(name).display

    def start_pull(
        self, request: PullRequest, progress: Progress = ignore_progress
    ) -> Future[InstalledModel]:
        """Begin to install a model, or join the pull in progress; see `PullQueue.submit`."""
        return self._pulls.submit(request, progress)

    def pull(self, request: PullRequest, progress: Progress = ignore_progress) -> ModelReport:
        """Install a model and return it; see `services.models.pull_model`."""
        return _report(self.start_pull(request, progress).result())

    def remove(self, name: str) -> None:
        """Delete the model of exactly that name; what uses it now goes on to its end.

        Raises InvalidNameError, ModelNotFoundError, and ConflictError while it is being pulled.
        """
        remove(self._folder, name)
        self._encoders.refresh()

    def close(self) -> None:
        """End the pull in progress."""
        self._workshop.close()
        self._pulls.close()

    def _pull(self, request: PullRequest, progress: Progress) -> InstalledModel:
        installed = pull_model(
            request,
            models_folder=self._folder,
            workshop=self._workshop,
            machine=self._machine,
            progress=progress,
        )
        self._encoders.refresh()
        return installed


def _report(model: InstalledModel) -> ModelReport:
    manifest = model.manifest
    return ModelReport(
        name=model.name.display,
        namespace=model.name.namespace,
        family=manifest.family,
        parameter_size=_millions(manifest.architecture.parameter_count),
        recipe=manifest.recipe,
        licence=manifest.licence,
        max_tokens=manifest.max_tokens,
        dimensions=manifest.dimensions,
        size_bytes=model.size_bytes,
        digest=manifest.digest,
        modified_at=model.modified_at,
        model_info=_model_info(manifest),
        facts={
            "name": model.name.display,
            "kind": manifest.kind,
            "recipe": manifest.recipe,
            "method": manifest.method,
            **asdict(manifest.runtime),
            "artefact": manifest.artefact,
            "source": manifest.source,
            "revision": manifest.revision,
            "weights_sha256": manifest.weights_sha256,
            "size_bytes": model.size_bytes,
            "pooling": manifest.pooling,
            "max_tokens": manifest.max_tokens,
            "dimensions": manifest.dimensions,
            "matryoshka_dimensions": list(manifest.matryoshka_dimensions),
            "fidelity": asdict(manifest.fidelity),
            "performance": asdict(manifest.performance),
            "candidates": [asdict(one) for one in manifest.candidates],
        },
    )


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
