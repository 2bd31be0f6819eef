"""The canary: does a loaded model still give the vector that it gave when it was installed?

A reranker's is its score of the canary text with itself.

The same artefact gives the same bits on one class of CPU with one engine version. Elsewhere the
last bits may differ; within a tolerance that is said, beyond it the model is not served.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedserve.engine.backend import describe
from embedserve.engine.cpu import cpu_class
from embedserve.engine.encoder import Encoder
from embedserve.engine.requests import WhenFull
from embedserve.errors import ModelError, OverloadedError
from embedserve.models.installed import InstalledModel

# The last bits of a vector may differ between CPU types (wider registers sum in another order);
# measured differences stay above this cosine, damaged weights fall far below it.
CANARY_COSINE = 0.9999


@dataclass(frozen=True)
class CanaryCheck:
    """How the canary's vector compared with the stored one when the model was loaded."""

    text: str
    vector: NDArray[np.float32]
    """(dimensions,) float32, as it came out here."""
    cpu: str
    engine_version: str
    is_exact: bool
    words: str
    """`exact`, or how far off and what has changed since, for people."""


def check_canary(
    encoder: Encoder, installed: InstalledModel, *, timeout_s: float | None = None
) -> CanaryCheck:
    """Embed the canary text; raise ModelError unless about its stored vector comes out.

    With `timeout_s` it waits no longer than that, and for no room in the queue: OverloadedError.
    """
    manifest = installed.manifest
    stored = np.array(manifest.canary.vector, dtype=np.float32)
    got = _vector(encoder, manifest.canary.text, timeout_s)
    cosine = closeness(got, stored)
    if not cosine >= CANARY_COSINE:  # also catches NaN
        name = installed.name.display
        anew = f", and create `{name}` anew" if manifest.parent else ""
        raise ModelError(
            f"Model `{name}` gives another vector than when it was installed (cosine {cosine:.5f} "
            "to its canary). It is not served. Run "
            f"`embedserve pull {manifest.parent or name} --force` on this machine{anew}."
        )
    is_exact = got.tobytes() == stored.tobytes()
    cpu, version = cpu_class(), describe(encoder.spec.engine).version
    measured = manifest.performance
    changes = changed_since(measured.cpu, measured.engine_version, cpu, version)
    words = "exact" if is_exact else f"within tolerance: cosine {cosine:.7f}; {changes}"
    return CanaryCheck(manifest.canary.text, got, cpu, version, is_exact, words)


def closeness(got: NDArray[np.float32], stored: NDArray[np.float32]) -> float:
    """Return the cosine of two unit vectors, or what stands for it where they are one score.

    Unit vectors at distance d have the cosine 1 - d * d / 2. Of two scores d is what they differ
    by, as a share of the stored one where that is above 1.
    """
    if len(stored) > 1:
        return float(np.dot(got, stored))
    distance = float(np.abs(got - stored)[0]) / max(1.0, float(np.abs(stored)[0]))
    return 1 - distance * distance / 2


def _vector(encoder: Encoder, text: str, timeout_s: float | None) -> NDArray[np.float32]:
    if encoder.spec.kind == "reranker":
        tokenized = encoder.tokenize_pairs(encoder.tokenize_query(text), [text])
    else:
        tokenized = encoder.tokenize([text])
    when_full: WhenFull = "wait" if timeout_s is None else "refuse"
    future = encoder.submit(tokenized, lane="small", when_full=when_full, timeout_s=timeout_s)
    try:
        vector: NDArray[np.float32] = future.result(timeout_s)[0]
    except TimeoutError:
        future.cancel()
        raise OverloadedError(
            f"The engine did not come to the canary text within {timeout_s:g} s."
        ) from None
    return vector


def changed_since(old_cpu: str, old_version: str, cpu: str, version: str) -> str:
    """Say what is not as it was when the first vector was made."""
    changes = []
    if old_cpu != cpu:
        changes.append(f"made on `{old_cpu}`, now `{cpu}`")
    if old_version != version:
        changes.append(f"made with {old_version}, now {version}")
    return ", ".join(changes) or "though CPU class and engine version are the same"
