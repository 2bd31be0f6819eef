"""Whether the vectors that an index holds are those that this machine gives, to the last bit.

The vectors of one artefact are kept together, whatever index they are for, with the canary's
vector on the machine that computed them first. Where it comes out otherwise here, within a
tolerance that is said; beyond it the index is refused.
"""

import base64
import json
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from embedserve.engine.backend import describe
from embedserve.engine.cpu import cpu_class
from embedserve.engine.encoder import Encoder
from embedserve.errors import ConflictError
from embedserve.services.canary import CANARY_COSINE, CanaryCheck, changed_since
from embedserve.services.encoders import Encoders
from embedserve.store.catalog import Catalog
from embedserve.types import Index

_LITTLE_ENDIAN = np.dtype("<f4")


@dataclass(frozen=True)
class Origin:
    """A machine's answer to the canary, as it is kept in the catalog."""

    text: str
    cpu: str
    engine_version: str
    vector_base64: str
    """Little-endian float32."""

    @classmethod
    def of(cls, canary: CanaryCheck) -> Self:
        """Take the answer of this machine."""
        content = canary.vector.astype(_LITTLE_ENDIAN, copy=False).tobytes()
        packed = base64.b64encode(content).decode("ascii")
        return cls(canary.text, canary.cpu, canary.engine_version, packed)

    @classmethod
    def read(cls, text: str) -> Self:
        """Read what `write` gave."""
        return cls(**json.loads(text))

    def write(self) -> str:
        """Return JSON."""
        return json.dumps(vars(self), sort_keys=True, ensure_ascii=False)

    @property
    def vector(self) -> NDArray[np.float32]:
        """(dimensions,) float32."""
        content = base64.b64decode(self.vector_base64)
        return np.frombuffer(content, dtype=_LITTLE_ENDIAN).astype(np.float32)


class VectorOrigins:
    """Compare the origin of stored vectors with this machine."""

    def __init__(self, catalog: Catalog, encoders: Encoders) -> None:
        self._catalog = catalog
        self._encoders = encoders

    def begin(self, encoder: Encoder) -> None:
        """Note this machine before an index is made for its vectors.

        Vectors of another machine that no index uses any more are forgotten first, so that a new
        index is never a mixture.
        """
        artefact = encoder.spec.artefact
        canary = self._encoders.canary(artefact)
        if canary is None:  # the model was removed a moment ago
            return
        here = Origin.of(canary)
        stored = Origin.read(self._catalog.origins.add(artefact, here.write()))
        if stored.vector_base64 != here.vector_base64:
            self._catalog.origins.renew(artefact, here.write())

    def check(self, index: Index, encoder: Encoder) -> list[str]:
        """Return what a user of the index has to know: nothing where all bits are the same.

        Raises ConflictError where the vectors lie too far apart to be compared.
        """
        stored = self._catalog.origins.get(encoder.spec.artefact)
        if stored is None:  # a catalog from before origins were kept
            self.begin(encoder)
            return []
        then = Origin.read(stored)
        here = self._here(encoder, then.text)
        if then.vector_base64 == here.vector_base64:
            return []
        cosine = float(np.dot(then.vector, here.vector))
        changes = changed_since(then.cpu, then.engine_version, here.cpu, here.engine_version)
        if not cosine >= CANARY_COSINE:  # also catches NaN
            raise ConflictError(
                f"Index `{index.name}` holds vectors that `{index.model}` does not give here "
                f"({changes}; cosine {cosine:.5f} between the two). Use it on the former machine, "
                "or delete every index of this model "
                f"(`embedserve index delete {index.name}`) and ingest the documents anew."
            )
        return [
            f"Index `{index.name}` holds vectors with other last bits than this machine gives "
            f"({changes}), within tolerance: cosine {cosine:.7f}. For one kind alone, delete every "
            "index of this model and ingest the documents anew."
        ]

    def warnings(self, index: Index) -> list[str]:
        """Return what `check` says, also of what it refuses; nothing before its model is loaded."""
        if not self._encoders.is_loaded(index.model):
            return []
        encoder = self._encoders.get(index.model)
        if encoder.spec.artefact != index.artefact:
            return []
        try:
            return self.check(index, encoder)
        except ConflictError as error:
            return [error.message]

    def _here(self, encoder: Encoder, text: str) -> Origin:
        canary = self._encoders.canary(encoder.spec.artefact)
        if canary and canary.text == text:
            return Origin.of(canary)
        # Installed with another canary, or removed a moment ago.
        vector = encoder.encode([text], lane="small")[0]
        version = describe(encoder.spec.engine).version
        return Origin.of(CanaryCheck(text, vector, cpu_class(), version, is_exact=True, words=""))
