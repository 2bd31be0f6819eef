"""Measure an installed model again, here, and compare with what its manifest says.

Against fp32 it is measured where the checkpoint that it was made from can be had; without it
digests, canary, batch invariance and speed are checked all the same, and the answer says so.
"""

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from embedserve.errors import ModelError
from embedserve.models import fidelity
from embedserve.models import manifest as manifests
from embedserve.models.checkpoint import Overrides
from embedserve.models.fidelity import FidelityCard
from embedserve.models.installed import InstalledModel
from embedserve.models.library import library, spellings
from embedserve.models.manifest import REFERENCE_FILE, TOKENIZER_FILE, Manifest, Performance
from embedserve.models.names import HUB_HOST, ModelName, parse_name
from embedserve.services.canary import CANARY_COSINE, changed_since, closeness
from embedserve.services.checkpoints import FoundCheckpoint, find_checkpoint
from embedserve.services.models import Machine, Progress, encoder_spec
from embedserve.services.workshop import LoadedModel, Workbench, Workshop
from embedserve.types import EncoderSpec, Vectors

TOLERANCES = {
    "cosine_mean": 0.0005,
    "cosine_min": 0.002,
    "top1_agreement": 0.03,
    "top10_overlap": 0.01,
}
"""How far a figure may lie from the stored one: what another CPU class changes by rounding
otherwise. On the machine that pulled, nothing differs at all."""

_SPEEDS = ("16", "128", "mixed")
# Rounds of a pull that are measured here at once.
_ROUNDS = 3
# How sources are written down; see `models.pull.locate`.
_FOLDER = "folder "
_PACKAGE = "package "


@dataclass(frozen=True)
class Verification:
    """What came of it."""

    name: str
    canary: str
    """How the canary's vector compared, in words."""
    stored_fidelity: FidelityCard
    fidelity: FidelityCard | None
    """Measured here; None: there is no fp32 graph to compare with, see `why_no_fidelity`."""
    why_no_fidelity: str
    stored_performance: Performance
    performance: Performance
    failures: tuple[str, ...]
    """What fails the recipe's gate or differs beyond tolerance; empty when all is well."""


def verify_model(
    model: InstalledModel, *, workshop: Workshop, machine: Machine, progress: Progress
) -> Verification:
    """Check digests and canary, measure what can be measured; raise ModelError for bad digests."""
    manifest = model.manifest
    progress("checking digests", None, None)
    manifests.verify(model.folder, manifest)
    with tempfile.TemporaryDirectory(prefix="embedserve-verify-") as scratch:
        place = Path(scratch)
        with workshop.workbench() as bench:
            progress("measuring the installed model", None, None)
            loaded = _load(bench, encoder_spec(model), manifest, machine)
            ours = loaded.reference_rows()
            sung = loaded.canary(manifest.canary.text)
            performance = _performance(loaded, _ROUNDS * machine.round_seconds)
        card, why_not = _card(model, ours, place, workshop, machine, progress)
    canary, is_canary_good = _canary(manifest, sung, performance)
    failures = [] if is_canary_good else [f"the canary is {canary}"]
    if manifest.performance.is_batch_invariant and not performance.is_batch_invariant:
        failures.append("vectors depend on the batch, and did not when it was pulled")
    if card:
        failures += [*fidelity.failed_figures(card, manifest.recipe), *_differing(manifest, card)]
    return Verification(
        name=model.name.display,
        canary=canary,
        stored_fidelity=manifest.fidelity,
        fidelity=card,
        why_no_fidelity=why_not,
        stored_performance=manifest.performance,
        performance=performance,
        failures=tuple(failures),
    )


def _card(
    model: InstalledModel,
    ours: Vectors,
    place: Path,
    workshop: Workshop,
    machine: Machine,
    progress: Progress,
) -> tuple[FidelityCard | None, str]:
    """Measure against a fresh fp32 graph, or say why there is none."""
    try:
        progress("locating checkpoint", None, None)
        found = _find(model, progress)
        progress("exporting", None, None)
        workshop.exporter.export(found.checkpoint.folder, place, found.overrides)
    except ModelError as error:
        return None, error.message
    progress("measuring fp32", None, None)
    spec = replace(
        encoder_spec(model),
        artefact="reference",
        onnx_path=place / REFERENCE_FILE,
        tokenizer_path=place / TOKENIZER_FILE,
        engine="onnxruntime",
        arithmetic="f32",
        dynamic_group=0,
    )
    with workshop.workbench() as bench:
        true = _load(bench, spec, model.manifest, machine).reference_rows()
    return fidelity.compare_kind(model.manifest.kind, true, ours), ""


def _find(model: InstalledModel, progress: Progress) -> FoundCheckpoint:
    """Find the very weights that the model was made from, and how they were exported."""
    manifest = model.manifest
    name, source = _origin(model)
    told = Overrides(
        max_tokens=manifest.max_tokens,
        query_prompt=manifest.query_prompt,
        document_prompt=manifest.document_prompt,
    )
    if manifest.kind == "embedding":
        told = replace(told, pooling=manifest.pooling)
    for ignores_onnx in (False, True):
        told = replace(told, ignores_onnx=ignores_onnx)
        found = find_checkpoint(name, source, told, progress)
        if found.checkpoint.weights_sha256 == manifest.weights_sha256:
            return found
    raise ModelError(
        f"The weights in {found.checkpoint.source} are not those that "
        f"`{model.name.display}` was made from. Pull it again to follow them."
    )


def _origin(model: InstalledModel) -> tuple[ModelName, Path | None]:
    """Return the name, and the folder if any, under which the checkpoint is found.

    A copy has a name of its own, so what its manifest says of its source goes before the name.
    """
    source, revision = model.manifest.source, model.manifest.revision
    if source.startswith(_FOLDER):
        return model.name, Path(source.removeprefix(_FOLDER))
    if source.startswith(HUB_HOST):
        return parse_name(f"{source}:{revision}"), None
    packaged = (row for row in library() if f"{_PACKAGE}{row.bundled_package}" == source)
    row = next(packaged, None)
    return (spellings(row)[0] if row else model.name), None


def _load(bench: Workbench, spec: EncoderSpec, manifest: Manifest, machine: Machine) -> LoadedModel:
    return LoadedModel(bench, spec, manifest.kind, device=machine.device, threads=machine.threads)


def _performance(loaded: LoadedModel, seconds: float) -> Performance:
    speeds = {of: loaded.speed(of, seconds) for of in _SPEEDS}
    return Performance(
        **loaded.machine(),
        tokens_per_s_16=speeds["16"],
        tokens_per_s_128=speeds["128"],
        tokens_per_s_mixed=speeds["mixed"],
        is_batch_invariant=loaded.is_batch_invariant(),
    )


def _canary(manifest: Manifest, got: Vectors, here: Performance) -> tuple[str, bool]:
    stored = np.array(manifest.canary.vector, dtype=np.float32)
    if got.tobytes() == stored.tobytes():
        return "exact", True
    cosine = closeness(got, stored)
    then = manifest.performance
    changes = changed_since(then.cpu, then.engine_version, here.cpu, here.engine_version)
    is_good = cosine >= CANARY_COSINE
    place = "within" if is_good else "beyond"
    return f"{place} tolerance: cosine {cosine:.7f}; {changes}", is_good


def _differing(manifest: Manifest, card: FidelityCard) -> list[str]:
    stored, measured = asdict(manifest.fidelity), asdict(card)
    return [
        f"{name.replace('_', ' ')} is {measured[name]:.5f}, stored {stored[name]:.5f}, "
        f"tolerance {tolerance}"
        for name, tolerance in TOLERANCES.items()
        # Written so that NaN differs too.
        if not abs(measured[name] - stored[name]) <= tolerance
    ]
