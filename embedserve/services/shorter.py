"""Vectors cut to fewer dimensions, and what to say where the model was not trained for it."""

from collections.abc import Sequence

import numpy as np

from embedserve.types import EncoderSpec, Vectors

# As torch's layer_norm has it. It scales a whole vector alike, so the normalization after the cut
# takes it out again, and so would it any earlier normalization.
_EPSILON = np.float32(1e-5)
# Keeps a zero vector zero, as Ollama does (reference: its normalize function).
_SMALLEST_NORM = np.float32(1e-12)


def cut(vectors: Vectors, dimensions: int | None, spec: EncoderSpec) -> Vectors:
    """Keep the leading dimensions and normalize again; None, 0 or too many keep them all.

    (count, n) float32 of unit length -> (count, dimensions) float32 of unit length.
    """
    if not _is_shorter(dimensions, spec):
        return vectors
    if spec.layer_norm_before_cut:
        centred = vectors - vectors.mean(axis=1, keepdims=True)
        vectors = centred / np.sqrt(centred.var(axis=1, keepdims=True) + _EPSILON)
    short = vectors[:, :dimensions]
    norms = np.maximum(np.linalg.norm(short, axis=1, keepdims=True), _SMALLEST_NORM)
    return np.ascontiguousarray(short / norms, dtype=np.float32)


def warnings_of(model: str, dimensions: int | None, spec: EncoderSpec) -> Sequence[str]:
    """Say that the model was not trained for vectors of this length, where it was not."""
    if not _is_shorter(dimensions, spec) or dimensions in spec.matryoshka_dimensions:
        return ()
    trained = ", ".join(map(str, sorted({spec.dimensions, *spec.matryoshka_dimensions})[::-1]))
    return (
        f"`{model}` was not trained for {dimensions} dimensions, only for {trained}: its vectors "
        "were cut and normalized again, and may find less.",
    )


def _is_shorter(dimensions: int | None, spec: EncoderSpec) -> bool:
    return dimensions is not None and 0 < dimensions < spec.dimensions
