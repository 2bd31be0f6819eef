"""The models in memory by name: loaded on first use, verified before they serve.

How long they stay is decided in residents.py.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock

from embedserve.engine.encoder import Encoder
from embedserve.engine.scheduler import Scheduler
from embedserve.errors import EmbedserveError, InvalidNameError, InvalidRequestError, ModelError
from embedserve.models.installed import InstalledModel, list_installed, resolve
from embedserve.models.manifest import verify
from embedserve.models.names import ModelName, parse_name
from embedserve.services.canary import CanaryCheck, check_canary
from embedserve.services.machine import unfit
from embedserve.services.memory import FreedMemory
from embedserve.services.models import encoder_spec
from embedserve.services.residency import LoadedModel, Reason, Residency
from embedserve.services.residents import NameKey, Residents
from embedserve.types import ModelKind

logger = logging.getLogger(__name__)

_EXAMPLES: Mapping[ModelKind, str] = {
    "embedding": "all-minilm",
    "reranker": "bge-reranker-base",
}
_NOT_OF_KIND: Mapping[ModelKind, str] = {
    "embedding": "is a reranker: it scores a query with a document and gives no embeddings",
    "reranker": "gives embeddings: it does not score a query with documents",
}

# What a pull measures is a whole process; without any model one that has an engine takes this.
_PROCESS_BYTES = 84 * 1024 * 1024
# For a model that was not measured: graph, repacked weights and kernels, by the size of its files.
_MEMORY_PER_FILE_BYTE = 4


class Encoders:
    """Hand out one Encoder a model; loading one never blocks those that are loaded."""

    def __init__(
        self,
        models_folder: Path,
        scheduler: Scheduler,
        *,
        device: str,
        default_model: str = "",
        alone_threads: int = 1,
        residency: Residency | None = None,
    ) -> None:
        """Load nothing yet; `default_model` stays in memory once it is loaded."""
        self._models_folder = models_folder
        self._scheduler = scheduler
        self._device = device
        # One run fills a GPU.
        self._alone_threads = alone_threads if device == "cpu" else 1
        self._default_model = default_model
        self._default_key: NameKey | None = None
        # A name that is none is said where the default model is loaded.
        with suppress(InvalidNameError):
            self._default_key = parse_name(default_model).key
        self.freed = FreedMemory()
        """To be told by whoever has freed much; models that come and go do."""
        self._residents = Residents(residency or Residency(), self.freed)
        self._loading: dict[str, Lock] = {}
        self._refreshes = 0
        self._only_names: dict[ModelKind, str] = {}
        self._lock = Lock()

    def get(self, name: str, kind: ModelKind = "embedding") -> Encoder:
        """Return the model's encoder, loading it on first use (this blocks).

        Raises InvalidNameError, ModelNotFoundError, InvalidRequestError for a model of another
        kind, ModelError when its files cannot be trusted or it can never fit, and OverloadedError
        while the models that are in use leave no room for it.
        """
        key = parse_name(name).key
        if encoder := self.find(name, kind):
            return encoder
        with self._lock:
            seen = self._refreshes
        installed = resolve(self._models_folder, name)
        self._refuse_other_kind(installed, kind)
        artefact = installed.manifest.artefact
        if key == self._default_key:
            self._residents.kept_artefact = artefact
        with self._lock:
            loading = self._loading.setdefault(artefact, Lock())
        with loading:  # another name of the same model may be loading it, or has
            encoder = self._residents.by_artefact(artefact) or self._load(installed)
        with self._lock:
            if seen == self._refreshes:
                self._residents.name(key, encoder)
                return encoder
        # The model came or went meanwhile: served this once, looked up next time.
        self.refresh()
        return encoder

    def find(self, name: str, kind: ModelKind = "embedding") -> Encoder | None:
        """Return the model's encoder if it is of that kind and loaded, at once.

        Raises InvalidNameError.
        """
        # Reading a dict is atomic; the hot path takes no lock and touches no file.
        encoder = self._residents.by_name(parse_name(name).key)
        return encoder if encoder and encoder.spec.kind == kind else None

    def only_name(self, kind: ModelKind) -> str:
        """Return the name of the only installed model of a kind; its copies do not count.

        Raises InvalidRequestError when there is none, and when there are several.
        """
        # Each request that names no model asks; manifests are read once after each refresh.
        with self._lock:
            seen, known = self._refreshes, self._only_names.get(kind)
        if known:
            return known
        models = {model.manifest.artefact: model.name.display for model in self._installed(kind)}
        names = sorted(models.values())
        if len(names) == 1:
            with self._lock:
                if seen == self._refreshes:
                    self._only_names[kind] = names[0]
            return names[0]
        if not names:
            raise InvalidRequestError(
                f"No {kind} model is installed. Pull one: `embedserve pull {_EXAMPLES[kind]}`."
            )
        listed = ", ".join(f"`{name}`" for name in names)
        raise InvalidRequestError(
            f"Several {kind} models are installed: {listed}. Name one of them in `model`."
        )

    def keep(self, encoder: Encoder, seconds: float) -> None:
        """Let a model stay for `seconds` after its last use; see `Residents.set_keep_alive`."""
        self._residents.set_keep_alive(encoder, seconds)

    def unload(self, name: str) -> None:
        """Let a model go now, the default one too; its next use loads it again.

        Raises InvalidNameError, ModelNotFoundError, ModelError.
        """
        self._residents.unload(resolve(self._models_folder, name).manifest.artefact)

    def loaded(self) -> list[LoadedModel]:
        """Describe the models in memory, the longest to stay first."""
        return self._residents.loaded()

    @property
    def default_model(self) -> str:
        """The model for requests that name none; empty: there is none."""
        return self._default_model

    @property
    def loads(self) -> int:
        """How many times a model was loaded."""
        return self._residents.loads

    def unloads(self, reason: Reason) -> int:
        """Return how many times a model was let go for one of `residency.REASONS`."""
        return self._residents.unloads[reason]

    def is_loaded(self, name: str) -> bool:
        """Tell whether `get` would return at once; raise InvalidNameError."""
        return self._residents.by_name(parse_name(name).key) is not None

    def refresh(self) -> None:
        """Look at the models folder anew: a model was installed, replaced or removed there.

        Names that are in use are looked up here, so that no request for a loaded model waits behind
        those that load others. Models that are installed under no name any more are let go; those
        who use one keep it until they are done.
        """
        with self._lock:
            self._refreshes += 1
            self._only_names.clear()
            installed = {model.manifest.artefact for model in list_installed(self._models_folder)}
            self._residents.kept_artefact = self._artefact(self._default_model)
            found = {
                key: self._artefact(ModelName(*key).display) for key in self._residents.names()
            }
            self._residents.follow({k: v for k, v in found.items() if v}, installed)
            self._loading = {k: v for k, v in self._loading.items() if k in installed}

    def check_canary(self, name: str, *, timeout_s: float | None = None) -> None:
        """Embed the model's canary text; raise ModelError unless its stored vector comes out.

        See `canary.check_canary` for `timeout_s`, which does not cover the loading.
        """
        encoder = self.get(name)
        check_canary(encoder, resolve(self._models_folder, name), timeout_s=timeout_s)

    def canary(self, artefact: str) -> CanaryCheck | None:
        """Return how the canary compared when this artefact was loaded; None: it is not loaded."""
        return self._residents.canary(artefact)

    def close(self) -> None:
        """End what watches the time; the models stay with those who use them."""
        self._residents.close()
        self.freed.close()

    def _artefact(self, name: str) -> str | None:
        """Return what a name leads to now; None: it is not installed, or not to be used."""
        try:
            return resolve(self._models_folder, name).manifest.artefact
        except EmbedserveError:
            return None

    def _load(self, installed: InstalledModel) -> Encoder:
        name, manifest = installed.name.display, installed.manifest
        reason = unfit(self._device, manifest.recipe, manifest.runtime.engine)
        if self._device != "cpu" and reason:
            raise ModelError(
                f"Model `{name}` was pulled as {manifest.recipe} for {manifest.runtime.engine}, "
                f"and models run on `{self._device}` here: {reason}. Pull it for that device: "
                f"`EMBEDSERVE_DEVICE={self._device} embedserve pull {name}`."
            )
        verify(installed.folder, manifest)
        # A second graph is no larger than the first one.
        counted = counted_bytes(installed) * (2 if self._alone_threads > 1 else 1)
        with self._residents.room_for(name, counted):
            encoder = Encoder(
                encoder_spec(installed),
                self._scheduler,
                device=self._device,
                alone_threads=self._alone_threads,
            )
            canary = check_canary(encoder, installed)
            # Before its room is open to others again.
            self._residents.add(name, encoder, canary, counted)
        logger.info(
            "loaded model %s: recipe %s on %s", name, manifest.recipe, canary.engine_version
        )
        if not canary.is_exact:
            logger.warning("model %s: its canary is %s", name, canary.words)
        return encoder

    def _installed(self, kind: ModelKind) -> list[InstalledModel]:
        return [one for one in list_installed(self._models_folder) if one.manifest.kind == kind]

    def _refuse_other_kind(self, installed: InstalledModel, kind: ModelKind) -> None:
        if installed.manifest.kind == kind:
            return
        others = self._installed(kind)
        way_out = (
            f"Use `{others[0].name.display}`"
            if others
            else f"Pull one that does: `embedserve pull {_EXAMPLES[kind]}`"
        )
        raise InvalidRequestError(
            f"Model `{installed.name.display}` {_NOT_OF_KIND[kind]}. {way_out}."
        )


def counted_bytes(installed: InstalledModel) -> int:
    """Return what a model counts of the memory for models: as measured when it was pulled."""
    measured = installed.manifest.performance.resident_bytes
    if measured <= 0:
        return installed.size_bytes * _MEMORY_PER_FILE_BYTE
    return max(installed.size_bytes, measured - _PROCESS_BYTES)
