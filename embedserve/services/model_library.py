"""Models as users see them: listed, described, pulled, made from others, verified, removed."""

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedserve.models import installed
from embedserve.models.installed import InstalledModel
from embedserve.models.names import parse_name
from embedserve.services.derived_models import DerivedModel, derive_model
from embedserve.services.encoders import Encoders
from embedserve.services.model_report import ModelReport, describe_model
from embedserve.services.models import (
    Machine,
    Progress,
    PullRequest,
    ignore_progress,
    pull_model,
    settle,
)
from embedserve.services.pulls import PullQueue
from embedserve.services.residency import LoadedModel
from embedserve.services.verification import Verification, verify_model
from embedserve.services.workshop import Workshop


@dataclass(frozen=True)
class RunningModel:
    """One model in memory."""

    report: ModelReport
    loaded: LoadedModel


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
        found = [self._describe(model) for model in installed.list_installed(self._folder)]
        return sorted(found, key=lambda report: report.modified_at, reverse=True)

    def report(self, name: str) -> ModelReport:
        """Describe one model; raise InvalidNameError or ModelNotFoundError."""
        return self._describe(installed.resolve(self._folder, name))

    def display(self, name: str) -> str:
        """Return the name with its tag; raise InvalidNameError."""
        return parse_name(name).display

    def start_pull(
        self, request: PullRequest, progress: Progress = ignore_progress
    ) -> Future[InstalledModel]:
        """Begin to install a model, or join the pull in progress; see `PullQueue.submit`.

        Raises InvalidRequestError at once for what no pull could carry out.
        """
        return self._pulls.submit(settle(request), progress)

    def pull(self, request: PullRequest, progress: Progress = ignore_progress) -> ModelReport:
        """Install a model and return it; see `services.models.pull_model`."""
        return self._describe(self.start_pull(request, progress).result())

    def remove(self, name: str) -> None:
        """Delete the model of exactly that name; what uses it now goes on to its end.

        Raises InvalidNameError, ModelNotFoundError, and ConflictError while it is being pulled.
        """
        installed.remove(self._folder, name)
        self._encoders.refresh()

    def copy(self, source: str, target: str) -> None:
        """Install a model under another name too; see `models.installed.copy`.

        One loaded graph serves both names.
        """
        installed.copy(self._folder, source, target)
        self._encoders.refresh()

    def create(self, source: str, target: str, parameters: Mapping[str, Any]) -> DerivedModel:
        """Install a model under another name with other parameters; see `derived_models`."""
        made = derive_model(self._folder, source, target, parameters)
        self._encoders.refresh()
        return made

    def running(self) -> list[RunningModel]:
        """Describe the models in memory, the longest to stay first."""
        found = []
        models = installed.list_installed(self._folder)
        for loaded in self._encoders.loaded():
            same = [model for model in models if model.manifest.artefact == loaded.artefact]
            # The name by which it was loaded may be gone since.
            same.sort(key=lambda model: model.name.display != loaded.name)
            if same:
                found.append(RunningModel(self._describe(same[0]), loaded))
        return found

    def unload(self, name: str) -> None:
        """Let a model go from memory; see `Encoders.unload`."""
        self._encoders.unload(name)

    @property
    def default_model(self) -> str:
        """The model for requests that name none; empty: there is none."""
        return self._encoders.default_model

    @property
    def is_on_gpu(self) -> bool:
        """Tell whether models run in the memory of a GPU."""
        return self._machine.device != "cpu"

    def disk_bytes(self) -> int:
        """Count the bytes below the models folder; files that names share count once."""
        return installed.disk_bytes(self._folder)

    def verify(self, name: str, progress: Progress = ignore_progress) -> Verification:
        """Check and measure an installed model here; see `services.verification`."""
        return verify_model(
            installed.resolve(self._folder, name),
            workshop=self._workshop,
            machine=self._machine,
            progress=progress,
        )

    def close(self) -> None:
        """End the pull in progress."""
        self._workshop.close()
        self._pulls.close()

    def _pull(self, request: PullRequest, progress: Progress) -> InstalledModel:
        model = pull_model(
            request,
            models_folder=self._folder,
            workshop=self._workshop,
            machine=self._machine,
            progress=progress,
        )
        self._encoders.refresh()
        return model

    def _describe(self, model: InstalledModel) -> ModelReport:
        return describe_model(model, self._encoders.canary(model.manifest.artefact))
