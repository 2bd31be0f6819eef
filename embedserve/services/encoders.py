"""The models that are in memory: loaded on first use, verified before they serve.

Nothing is closed here. Whoever embeds holds its Encoder, and the graph is freed with the last
holder, so a model that is removed or replaced serves what is under way to its end.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from embedserve.engine.encoder import Encoder
from embedserve.engine.scheduler import Scheduler
from embedserve.errors import InvalidRequestError, ModelError
from embedserve.models.installed import InstalledModel, list_installed, resolve
from embedserve.models.manifest import verify
from embedserve.models.names import parse_name
from embedserve.services.canary import CanaryCheck, check_canary
from embedserve.services.models import CPU_ENGINES, encoder_spec

logger = logging.getLogger(__name__)

_NameKey = tuple[str, str, str, str]  # `ModelName.key`


@dataclass(frozen=True)
class _Loaded:
    encoder: Encoder
    canary: CanaryCheck


class Encoders:
    """Hand out one Encoder a model; loading one never blocks those that are loaded."""

    def __init__(self, models_folder: Path, scheduler: Scheduler, *, device: str) -> None:
        self._models_folder = models_folder
        self._scheduler = scheduler
        self._device = device
        self._by_artefact: dict[str, _Loaded] = {}
        self._by_name: dict[_NameKey, Encoder] = {}
        self._loading: dict[str, Lock] = {}
        self._refreshes = 0
        self._lock = Lock()

    def get(self, name: str) -> Encoder:
        """Return the model's encoder, loading it on first use (this blocks).

        Raises InvalidNameError, ModelNotFoundError, InvalidRequestError for a reranker, or
        ModelError when its files cannot be trusted.
        """
        key = parse_name(name).key
        # Reading a dict is atomic; the hot path takes no lock and touches no file.
        if encoder := self._by_name.get(key):
            return encoder
        with self._lock:
            seen = self._refreshes
        installed = resolve(self._models_folder, name)
        self._refuse_reranker(installed)
        artefact = installed.manifest.artefact
        with self._lock:
            loading = self._loading.setdefault(artefact, Lock())
        with loading:  # another name of the same model may be loading it, or has
            loaded = self._by_artefact.get(artefact) or self._load(installed)
            with self._lock:
                # Else the model came or went meanwhile: served this once, looked up next time.
                if seen == self._refreshes:
                    self._by_artefact[artefact] = loaded
                    self._by_name[key] = loaded.encoder
        return loaded.encoder

    def find(self, name: str) -> Encoder | None:
        """Return the model's encoder if it is loaded, at once; raise InvalidNameError."""
        return self._by_name.get(parse_name(name).key)

    @property
    def loaded_count(self) -> int:
        """How many models are in memory."""
        return len(self._by_artefact)

    def is_loaded(self, name: str) -> bool:
        """Tell whether `get` would return at once; raise InvalidNameError."""
        return self.find(name) is not None

    def refresh(self) -> None:
        """Look at the models folder anew: a model was installed, replaced or removed there.

        Every name is looked up again on its next use, and models that are installed under no name
        any more are let go. Those who use one keep it until they are done.
        """
        with self._lock:
            self._refreshes += 1
            self._by_name = {}
            installed = {model.manifest.artefact for model in list_installed(self._models_folder)}
            self._by_artefact = {k: v for k, v in self._by_artefact.items() if k in installed}
            self._loading = {k: v for k, v in self._loading.items() if k in installed}

    def check_canary(self, name: str) -> None:
        """Embed the model's canary text; raise ModelError unless its stored vector comes out."""
        check_canary(self.get(name), resolve(self._models_folder, name))

    def canary(self, artefact: str) -> CanaryCheck | None:
        """Return how the canary compared when this artefact was loaded; None: it is not loaded."""
        loaded = self._by_artefact.get(artefact)
        return loaded.canary if loaded else None

    def _load(self, installed: InstalledModel) -> _Loaded:
        name, manifest = installed.name.display, installed.manifest
        if self._device != "cpu" and manifest.runtime.engine in CPU_ENGINES:
            raise ModelError(
                f"Model `{name}` was pulled for {manifest.runtime.engine}, which runs on CPUs "
                f"only, and EMBEDSERVE_DEVICE is `{self._device}`. Pull it for that device: "
                f"`EMBEDSERVE_DEVICE={self._device} embedserve pull {name}`."
            )
        verify(installed.folder, manifest)
        encoder = Encoder(encoder_spec(installed), self._scheduler, device=self._device)
        canary = check_canary(encoder, installed)
        logger.info(
            "loaded model %s: recipe %s on %s", name, manifest.recipe, canary.engine_version
        )
        if not canary.is_exact:
            logger.warning("model %s: its canary is %s", name, canary.words)
        return _Loaded(encoder, canary)

    def _refuse_reranker(self, installed: InstalledModel) -> None:
        if installed.manifest.kind == "embedding":
            return
        others = list_installed(self._models_folder)
        names = [model.name.display for model in others if model.manifest.kind == "embedding"]
        way_out = f"Use `{names[0]}`" if names else "Pull one that does: `embedserve pull`"
        raise InvalidRequestError(
            f"Model `{installed.name.display}` is a reranker: it scores a query with a document "
            f"and gives no embeddings. {way_out}."
        )
