"""Pull a model: find, export, try recipes, install the best. And hand installed ones to the engine.

Export, quantization and measurement run in processes of their own (see `workshop`), so that no
training stack enters this one and every figure is the model's alone.
"""

import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from embedserve.engine.backend import BACKENDS
from embedserve.errors import InvalidRequestError, ModelError, ModelNotFoundError
from embedserve.models import installed
from embedserve.models import manifest as manifests
from embedserve.models.checkpoint import Facts, weights_sha256
from embedserve.models.checkpoint import Overrides as Overrides
from embedserve.models.fidelity import failed_figures
from embedserve.models.hub import Progress as Progress
from embedserve.models.installed import InstalledModel
from embedserve.models.library import KnownModel, find_known
from embedserve.models.manifest import ONNX_FILE, TOKENIZER_FILE, Canary, Manifest
from embedserve.models.names import ModelName, parse_name, split_recipe
from embedserve.models.pull import ignore_progress as ignore_progress
from embedserve.models.recipes import DEFAULTS, RECIPES
from embedserve.services.candidates import CANARY_TEXT, CandidateSearch, Chosen, Task
from embedserve.services.checkpoints import FoundCheckpoint, find_checkpoint
from embedserve.services.machine import Machine as Machine
from embedserve.services.workshop import Workshop
from embedserve.types import EncoderSpec

NOTHING_TOLD = Overrides()


@dataclass(frozen=True)
class PullRequest:
    """What is to be installed."""

    name: str
    """A tag that ends in a recipe, such as `all-minilm:fp32`, asks for that recipe."""
    source: Path | None = None
    """Folder of a checkpoint; None: from where the library knows it."""
    recipe: str | None = None
    """None: the fastest that is faithful enough."""
    engine: str | None = None
    is_forced: bool = False
    """Whether an intact model is exported again."""
    accepts_loss: bool = False
    """Whether a recipe that fails its gate is installed all the same."""
    overrides: Overrides = NOTHING_TOLD
    """What the checkpoint does not say."""


def pull_model(
    request: PullRequest,
    *,
    models_folder: Path,
    workshop: Workshop,
    machine: Machine,
    progress: Progress = ignore_progress,
) -> InstalledModel:
    """Install a model and return it.

    An installed, intact model of the same weights that is what was asked for is returned as it is,
    unless forced. Of several pulls of one name, in any process, one works and the others wait for
    it. Raises InvalidRequestError and ModelError; whatever was installed before is then still
    there.
    """
    asked = settle(request)
    wanted = parse_name(asked.name)
    with installed.lock(models_folder, wanted):
        present = _intact(models_folder, wanted, asked, machine)
        if present and not asked.is_forced:
            return present
        former = _former(models_folder, wanted)
        asked = _as_it_was(asked, former, machine)
        with installed.staging(models_folder, wanted) as staged:
            progress("locating checkpoint", None, None)
            found = find_checkpoint(wanted, asked.source, asked.overrides, progress)
            progress("exporting", None, None)
            workshop.exporter.export(found.checkpoint.folder, staged, found.overrides)
            task = _task(staged, found.facts, asked, machine)
            search = CandidateSearch(task, workshop, lambda stage: progress(stage, None, None))
            chosen = search.run()
            progress("installing", None, None)
            finished = _finish(staged, chosen)
            manifest = _manifest(wanted, found, chosen, folder=finished)
            if former and former.artefact != manifest.artefact:
                progress(_replacing(former), None, None)
            manifests.write(finished, manifest)
            return installed.install(models_folder, wanted, finished)


def encoder_spec(model: InstalledModel) -> EncoderSpec:
    """Describe an installed model to the engine."""
    manifest, runtime = model.manifest, model.manifest.runtime
    return EncoderSpec(
        artefact=manifest.artefact,
        onnx_path=model.folder / ONNX_FILE,
        tokenizer_path=model.folder / TOKENIZER_FILE,
        max_tokens=manifest.max_tokens,
        dimensions=manifest.dimensions,
        query_prompt=manifest.query_prompt,
        document_prompt=manifest.document_prompt,
        engine=runtime.engine,
        arithmetic=runtime.arithmetic,
        dynamic_group=runtime.dynamic_group,
        pad_token_id=runtime.pad_token_id,
        matryoshka_dimensions=manifest.matryoshka_dimensions,
        layer_norm_before_cut=manifest.layer_norm_before_cut,
        recipe=manifest.recipe,
        kind=manifest.kind,
        input_type=manifest.input_type,
    )


def settle(request: PullRequest) -> PullRequest:
    """Take the recipe from the tag where none is given.

    Raises InvalidRequestError, and InvalidNameError, for what is unknown or contradicts itself.
    """
    name = parse_name(request.name)
    _, of_tag = split_recipe(name.tag)
    if of_tag and request.recipe not in (None, of_tag):
        raise InvalidRequestError(
            f"The tag of `{name.display}` says `{of_tag}`, `--recipe` says `{request.recipe}`. "
            "Give one of them."
        )
    recipe = request.recipe or of_tag
    if recipe and recipe not in RECIPES:
        raise InvalidRequestError(f"Unknown recipe `{recipe}`. Known: {', '.join(RECIPES)}.")
    engines = BACKENDS.names()
    if request.engine and request.engine not in engines:
        raise InvalidRequestError(
            f"Unknown engine `{request.engine}`. Known: {', '.join(engines)}."
        )
    return replace(request, recipe=recipe)


def _intact(
    models_folder: Path, name: ModelName, asked: PullRequest, machine: Machine
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
    manifest, row = model.manifest, find_known(name)
    is_same = (
        asked.recipe in (None, manifest.recipe)
        and asked.engine in (None, manifest.runtime.engine)
        and asked.overrides == NOTHING_TOLD
        and _runs_here(manifest, machine)
        and _has_weights_of(manifest, asked.source, row)
    )
    return model if is_same else None


def _former(models_folder: Path, name: ModelName) -> Manifest | None:
    """Return the manifest of what is installed under exactly this name, damaged files or not."""
    try:
        model = installed.resolve(models_folder, name.display)
    except (ModelError, ModelNotFoundError):
        return None
    return model.manifest if model.folder == installed.folder_of(models_folder, name) else None


def _as_it_was(asked: PullRequest, former: Manifest | None, machine: Machine) -> PullRequest:
    """Ask for the form of a damaged model: its repair gives the vectors that indexes hold."""
    if former is None or asked.is_forced or asked.recipe or asked.engine:
        return asked
    if not _runs_here(former, machine):
        return asked
    return replace(
        asked,
        recipe=former.recipe,
        engine=former.runtime.engine,
        accepts_loss=asked.accepts_loss or bool(failed_figures(former.fidelity, former.recipe)),
    )


def _replacing(former: Manifest) -> str:
    return (
        f"replacing {former.recipe} on {former.runtime.engine}, whose vectors are others: indexes "
        "filled with it are refused until they are ingested anew, or it is pulled again"
    )


def _runs_here(manifest: Manifest, machine: Machine) -> bool:
    """Tell whether the engine would load it: models come from other machines, and engines go."""
    runtime = manifest.runtime
    if manifest.recipe not in RECIPES or runtime.engine not in BACKENDS.names():
        return False
    has_arithmetic = runtime.arithmetic != "bf16" or machine.has_bf16
    return has_arithmetic and not machine.why_not(manifest.recipe, runtime.engine)


def _has_weights_of(manifest: Manifest, source: Path | None, row: KnownModel | None) -> bool:
    if source is not None:
        return weights_sha256(source.expanduser()) == manifest.weights_sha256
    if row and row.revision and manifest.revision == row.revision:
        return True
    return not (row and row.weights_sha256) or row.weights_sha256 == manifest.weights_sha256


def _task(staged: Path, facts: Facts, asked: PullRequest, machine: Machine) -> Task:
    recipes = ((asked.recipe,),) if asked.recipe else DEFAULTS[machine.device]
    return Task(
        folder=staged,
        kind=facts.kind,
        max_tokens=facts.max_tokens,
        dimensions=facts.dimensions,
        pad_token_id=facts.pad_token_id,
        machine=machine,
        recipes=recipes,
        engines=(asked.engine,) if asked.engine else BACKENDS.names(),
        accepts_loss=asked.accepts_loss,
    )


def _finish(staged: Path, chosen: Chosen) -> Path:
    """Leave nothing in the chosen folder but the model's files; return that folder."""
    shutil.copyfile(staged / TOKENIZER_FILE, chosen.folder / TOKENIZER_FILE)
    # Moved out first: everything else in the staging place goes.
    return chosen.folder.rename(staged.parent / f"{staged.name}-finished")


def _manifest(name: ModelName, found: FoundCheckpoint, chosen: Chosen, *, folder: Path) -> Manifest:
    facts, row = found.facts, found.row
    # TensorRT's engines lie in a folder of their own and are no part of the model.
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    return Manifest(
        format_version=manifests.FORMAT_VERSION,
        name=name.display,
        source=found.checkpoint.source,
        revision=found.checkpoint.revision,
        weights_sha256=found.checkpoint.weights_sha256,
        licence=row.licence if row else "",
        kind=facts.kind,
        family=facts.family,
        architecture=facts.architecture,
        pooling=facts.pooling,
        max_tokens=facts.max_tokens,
        dimensions=facts.dimensions,
        matryoshka_dimensions=row.matryoshka_dimensions if row else (),
        layer_norm_before_cut=row.layer_norm_before_cut if row else False,
        query_prompt=facts.query_prompt,
        document_prompt=facts.document_prompt,
        recipe=chosen.recipe,
        method=chosen.method,
        runtime=chosen.runtime,
        files={file: manifests.digest_file(folder / file) for file in names},
        canary=Canary(CANARY_TEXT, tuple(chosen.canary.tolist())),
        fidelity=chosen.fidelity,
        performance=chosen.performance,
        candidates=chosen.candidates,
        created_at=datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
    )
