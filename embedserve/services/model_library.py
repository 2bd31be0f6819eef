"""Models as users see them: listed, described, pulled, verified, copied, removed."""

from concurrent.futures import Future
from pathlib import Path

from embedserve.models import installed
from embedserve.models.installed import InstalledModel
from embedserve.models.names import parse_name
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
from embedserve.services.verification import Verification, verify_model
from embedserve.services.workshop import Workshop


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
