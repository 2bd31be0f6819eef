"""Pull a model: find, export, quantize, measure, install. And hand installed ones to the engine.

Export runs in its own process, so that no training stack enters this one; vectors for the
measurement come from the engine, given from outside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from embedserve.errors import ModelError, ModelNotFoundError
from embedserve.models import fidelity, installed
from embedserve.models import manifest as manifests
from embedserve.models.checkpoint import Facts, read_facts, weights_sha256
from embedserve.models.exporter import Exporter
from embedserve.models.fidelity import FidelityCard
from embedserve.models.installed import InstalledModel
from embedserve.models.library import find_known
from embedserve.models.manifest import MODEL_FILES, ONNX_FILE, TOKENIZER_FILE, Canary, Manifest
from embedserve.models.names import ModelName, parse_name
from embedserve.models.pull import Checkpoint, locate
from embedserve.types import EncoderSpec, Vectors

Encode = Callable[[EncoderSpec, Sequence[str]], Vectors]
"""Load the model of a spec, turn the texts into vectors, and let the model go."""

Progress = Callable[[str, int | None, int | None], None]
"""Told the stage, and how much of it is done out of how much, where that is known."""

RECIPES = tuple(fidelity.GATES)
CANARY_TEXT = "The canary sings one song: 3 notes, no more. ¿Qué tal? 你好"

_REFERENCE_FILE = "reference.onnx"


@dataclass(frozen=True)
class PullRequest:
    """What is to be installed."""

    name: str
    source: Path | None = None
    """Folder of a checkpoint; None: from where the library knows it."""
    recipe: str = "int8"
    is_forced: bool = False
    """Whether an intact model is exported again."""


@dataclass(frozen=True)
class _Found:
    """A checkpoint with what is known of it from itself and from the library."""

    checkpoint: Checkpoint
    facts: Facts
    licence: str


@dataclass(frozen=True)
class _Measured:
    card: FidelityCard
    canary: Canary


def ignore_progress(stage: str, done: int | None, total: int | None) -> None:
    """Take progress and do nothing with it."""


def pull_model(
    request: PullRequest,
    *,
    models_folder: Path,
    encode: Encode,
    exporter: Exporter,
    progress: Progress = ignore_progress,
) -> InstalledModel:
    """Install a model and return it.

    An installed, intact model of the same recipe and weights is returned as it is, unless forced.
    Of several pulls of one name, in any process, one works and the others wait for it. Raises
    InvalidNameError and ModelError; whatever was installed before is then still there.
    """
    wanted, source, recipe = parse_name(request.name), request.source, request.recipe
    if recipe not in RECIPES:
        raise ModelError(f"Unknown recipe `{recipe}`. Known: {', '.join(RECIPES)}.")
    with installed.lock(models_folder, wanted):
        present = _intact(models_folder, wanted, source, recipe)
        if present and not request.is_forced:
            return present
        with installed.staging(models_folder, wanted) as staged:
            progress("locating checkpoint", None, None)
            found = _find(wanted, source)
            progress("exporting", None, None)
            exporter.export(found.checkpoint.folder, staged, recipe)
            progress("measuring fidelity", None, None)
            measured = _measure(staged, found.facts, encode)
            fidelity.gate(measured.card, recipe)
            (staged / _REFERENCE_FILE).unlink()
            progress("installing", None, None)
            manifest = _manifest(wanted, found, measured, recipe=recipe, folder=staged)
            manifests.write(staged, manifest)
            return installed.install(models_folder, wanted, staged)


def encoder_spec(model: InstalledModel) -> EncoderSpec:
    """Describe an installed model to the engine."""
    manifest = model.manifest
    return EncoderSpec(
        artefact=manifest.artefact,
        onnx_path=model.folder / ONNX_FILE,
        tokenizer_path=model.folder / TOKENIZER_FILE,
        max_tokens=manifest.max_tokens,
        dimensions=manifest.dimensions,
        query_prompt=manifest.query_prompt,
        document_prompt=manifest.document_prompt,
    )


def _intact(
    models_folder: Path, name: ModelName, source: Path | None, recipe: str
) -> InstalledModel | None:
    """Return what is installed under exactly this name if a pull would build the same again."""
    folder = installed.folder_of(models_folder, name)
    try:
        model = installed.resolve(models_folder, name.display)
        if model.folder != folder:
            return None
        manifests.verify(folder, model.manifest)
    except (ModelError, ModelNotFoundError):
        return None  # absent or damaged: to be pulled
    row = find_known(name)
    weights = row.weights_sha256 if row else model.manifest.weights_sha256
    if source is not None:
        weights = weights_sha256(source.expanduser())
    is_same = (model.manifest.recipe, model.manifest.weights_sha256) == (recipe, weights)
    return model if is_same else None


def _find(name: ModelName, source: Path | None) -> _Found:
    """Find the checkpoint; what the library says goes before what the checkpoint says."""
    checkpoint = locate(name, source)
    facts = read_facts(checkpoint.folder)
    row = find_known(name)
    if row is None:
        return _Found(checkpoint, facts, licence="")
    facts = replace(
        facts,
        max_tokens=row.max_tokens,
        query_prompt=row.query_prompt,
        document_prompt=row.document_prompt,
    )
    return _Found(checkpoint, facts, row.licence)


def _measure(staged: Path, facts: Facts, encode: Encode) -> _Measured:
    reference = _spec(staged, _REFERENCE_FILE, facts)
    candidate = _spec(staged, ONNX_FILE, facts)
    card = fidelity.measure(
        lambda texts: encode(reference, texts),
        lambda texts: encode(candidate, texts),
        fidelity.reference_texts(),
    )
    [vector] = encode(candidate, [CANARY_TEXT]).tolist()
    return _Measured(card, Canary(CANARY_TEXT, tuple(vector)))


def _spec(staged: Path, onnx_file: str, facts: Facts) -> EncoderSpec:
    """Describe a graph that is not installed yet."""
    return EncoderSpec(
        artefact=manifests.digest_file(staged / onnx_file).sha256,
        onnx_path=staged / onnx_file,
        tokenizer_path=staged / TOKENIZER_FILE,
        max_tokens=facts.max_tokens,
        dimensions=facts.dimensions,
    )


def _manifest(
    name: ModelName, found: _Found, measured: _Measured, *, recipe: str, folder: Path
) -> Manifest:
    facts = found.facts
    return Manifest(
        format_version=manifests.FORMAT_VERSION,
        name=name.display,
        source=found.checkpoint.source,
        revision=found.checkpoint.revision,
        weights_sha256=found.checkpoint.weights_sha256,
        licence=found.licence,
        family=facts.family,
        architecture=facts.architecture,
        pooling=facts.pooling,
        max_tokens=facts.max_tokens,
        dimensions=facts.dimensions,
        query_prompt=facts.query_prompt,
        document_prompt=facts.document_prompt,
        recipe=recipe,
        files={file: manifests.digest_file(folder / file) for file in MODEL_FILES},
        canary=measured.canary,
        fidelity=measured.card,
        created_at=datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
    )
