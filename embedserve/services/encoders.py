"""The models that are in memory: loaded on first use, verified before they serve.

Nothing is closed here. Whoever embeds holds its Encoder, and the graph is freed with the last
holder, so a model that is removed or replaced serves what is under way to its end.
"""

import logging
from pathlib import Path
from threading import Lock

import numpy as np

from embedserve.engine.encoder import Encoder
from embedserve.engine.scheduler import Scheduler
from embedserve.errors import ModelError
from embedserve.models.installed import InstalledModel, list_installed, resolve
from embedserve.models.manifest import verify
from embedserve.models.names import parse_name
from embedserve.services.models import encoder_spec

logger = logging.getLogger(__name__)

# The last bits of a vector may differ between CPU types (wider registers sum in another order);
# measured differences stay above this cosine, damaged weights fall far below it.
CANARY_COSINE = 0.9999

_NameKey = tuple[str, str, str, str]  # `ModelName.key`


class Encoders:
    """Hand out one Encoder a model; loading one never blocks those that are loaded."""

    def __init__(self, models_folder: Path, scheduler: Scheduler, *, device: str) -> None:
        self._models_folder = models_folder
        self._scheduler = scheduler
        self._device = device
        self._by_artefact: dict[str, Encoder] = {}
        self._by_name: dict[_NameKey, Encoder] = {}
        self._loading: dict[str, Lock] = {}
        self._refreshes = 0
        self._lock = Lock()

    def get(self, name: str) -> Encoder:
        """Return the model's encoder, loading it on first use (this blocks).

        Raises InvalidNameError, ModelNotFoundError, or ModelError when its files cannot be
        trusted.
        """
        key = parse_name(name).key
        # Reading a dict is atomic; the hot path takes no lock and touches no file.
        if encoder := self._by_name.get(key):
            return encoder
        with self._lock:
            seen = self._refreshes
        installed = resolve(self._models_folder, name)
        artefact = installed.manifest.artefact
        with self._lock:
            loading = self._loading.setdefault(artefact, Lock())
        with loading:  # another name of the same model may be loading it, or has
            encoder = self._by_artefact.get(artefact) or self._load(installed)
            with self._lock:
                # Else the model came or went meanwhile: served this once, looked up next time.
                if seen == self._refreshes:
                    self._by_name[key] = self._by_artefact[artefact] = encoder
        return encoder

    def is_loaded(self, name: str) -> bool:
        """Tell whether `get` would return at once; raise InvalidNameError."""
        return parse_name(name).key in self._by_name

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
        _check_canary(self.get(name), resolve(self._models_folder, name))

    def _load(self, installed: InstalledModel) -> Encoder:
        verify(installed.folder, installed.manifest)
        encoder = Encoder(encoder_spec(installed), self._scheduler, device=self._device)
        _check_canary(encoder, installed)
        logger.info("loaded model %s", installed.name.display)
        return encoder


def _check_canary(encoder: Encoder, installed: InstalledModel) -> None:
    canary = installed.manifest.canary
    got = encoder.encode([canary.text], lane="small")[0]
    cosine = float(np.dot(got, np.array(canary.vector, dtype=np.float32)))
    if not cosine >= CANARY_COSINE:  # also catches NaN
        raise ModelError(
            f"Model `{installed.name.display}` gives another vector than when it was installed "
            f"(cosine {cosine:.5f} to its canary). It is not served. Run "
            f"`embedserve pull {installed.name.display} --force` on this machine."
        )
