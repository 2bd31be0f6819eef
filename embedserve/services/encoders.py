"""The models that are in memory: loaded on first use, verified before they serve."""

import logging
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from embedserve.engine.encoder import Encoder
from embedserve.engine.scheduler import Scheduler
from embedserve.errors import ModelError
from embedserve.models.installed import InstalledModel, resolve
from embedserve.models.manifest import verify
from embedserve.services.models import encoder_spec
from embedserve.types import EncoderSpec, Vectors

logger = logging.getLogger(__name__)

# The last bits of a vector may differ between CPU types (wider registers sum in another order);
# measured differences stay above this cosine, damaged weights fall far below it.
CANARY_COSINE = 0.9999


class Encoders:
    """Hand out one Encoder a model; loading one never blocks those that are loaded."""

    def __init__(self, models_folder: Path, scheduler: Scheduler, *, device: str) -> None:
        self._models_folder = models_folder
        self._scheduler = scheduler
        self._device = device
        self._by_artefact: dict[str, Encoder] = {}
        self._by_name: dict[str, Encoder] = {}
        self._loading: dict[str, Lock] = {}
        self._lock = Lock()

    def get(self, name: str) -> Encoder:
        """Return the model's encoder, loading it on first use (this blocks).

        Raises InvalidNameError, ModelNotFoundError, or ModelError when its files cannot be
        trusted.
        """
        key = name.strip().lower()
        # Reading a dict is atomic; the hot path takes no lock and touches no file.
        if encoder := self._by_name.get(key):
            return encoder
        with self._lock:
            loading = self._loading.setdefault(key, Lock())
        with loading:
            if key not in self._by_name:
                encoder = self._load(resolve(self._models_folder, name))
                with self._lock:
                    self._by_name[key] = encoder
            return self._by_name[key]

    def is_loaded(self, name: str) -> bool:
        """Tell whether `get` would return at once."""
        return name.strip().lower() in self._by_name

    def encode_with(self, spec: EncoderSpec, texts: Sequence[str]) -> Vectors:
        """Embed texts with a graph that is not installed yet, to measure it."""
        encoder = Encoder(spec, self._scheduler, device=self._device)
        try:
            return encoder.encode(texts)
        finally:
            encoder.close()

    def forget(self, artefact: str) -> None:
        """Unload a model that is being removed or replaced."""
        with self._lock:
            encoder = self._by_artefact.pop(artefact, None)
            self._by_name = {k: v for k, v in self._by_name.items() if v is not encoder}
        if encoder:
            encoder.close()

    def check_canary(self, name: str) -> None:
        """Embed the model's canary text; raise ModelError unless its stored vector comes out."""
        _check_canary(self.get(name), resolve(self._models_folder, name))

    def _load(self, installed: InstalledModel) -> Encoder:
        spec = encoder_spec(installed)
        with self._lock:
            known = self._by_artefact.get(spec.artefact)
        if known:  # another name of a model that is loaded
            return known
        verify(installed.folder, installed.manifest)
        encoder = Encoder(spec, self._scheduler, device=self._device)
        _check_canary(encoder, installed)
        with self._lock:
            self._by_artefact[spec.artefact] = encoder
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
