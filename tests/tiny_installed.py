"""Tiny models put into a models folder as a pull would leave them, without its measurements."""

import shutil
from dataclasses import replace
from pathlib import Path

from embedserve.engine.encoder import Encoder
from embedserve.engine.scheduler import Scheduler
from embedserve.models import installed, manifest
from embedserve.models.fidelity import FidelityCard
from embedserve.models.installed import InstalledModel
from embedserve.models.manifest import (
    FORMAT_VERSION,
    MODEL_FILES,
    Canary,
    Manifest,
    Performance,
    Runtime,
)
from embedserve.models.names import parse_name
from embedserve.services.models import encoder_spec
from embedserve.types import BatchTokens, Vectors
from tests.tiny_models import Exported

CANARY = "the canary sings"


def install_tiny(
    models: Path, model: Exported, name: str, *, engine: str = "onnxruntime"
) -> InstalledModel:
    """Install the fp32 graph of a tiny model under `name`; its canary comes from `engine`."""
    wanted = parse_name(name)
    folder = installed.folder_of(models, wanted)
    folder.mkdir(parents=True)
    for source, target in zip(("reference.onnx", "tokenizer.json"), MODEL_FILES, strict=True):
        shutil.copyfile(model.folder / source, folder / target)
    files = {file: manifest.digest_file(folder / file) for file in MODEL_FILES}
    written = _manifest(model, wanted.display, engine, files)
    manifest.write(folder, written)
    vector = tuple(canary_vector(installed.resolve(models, name)).tolist())
    manifest.write(folder, replace(written, canary=Canary(CANARY, vector)))
    return installed.resolve(models, name)


def _manifest(
    model: Exported, name: str, engine: str, files: dict[str, manifest.FileDigest]
) -> Manifest:
    facts = model.facts
    return Manifest(
        format_version=FORMAT_VERSION,
        name=name,
        source="made for a test",
        revision="",
        weights_sha256="",
        licence="",
        kind=facts.kind,
        family=facts.family,
        architecture=facts.architecture,
        pooling=facts.pooling,
        max_tokens=facts.max_tokens,
        dimensions=facts.dimensions,
        matryoshka_dimensions=(),
        layer_norm_before_cut=False,
        query_prompt="",
        document_prompt="",
        recipe="fp32",
        method="as exported",
        runtime=Runtime(engine, "f32", 0, facts.pad_token_id),
        files=files,
        canary=Canary(CANARY, ()),
        fidelity=FidelityCard(1, 1, 1, 1, 1),
        performance=Performance("", "", 1, 1, 1, 1, 1, is_batch_invariant=True),
        candidates=(),
        created_at="2026-01-01T00:00:00Z",
    )


def canary_vector(model: InstalledModel) -> Vectors:
    """Return what a model gives for the canary, (dimensions,) float32."""
    scheduler = Scheduler(workers=1, batch_tokens=BatchTokens(64, 64), queue_tokens=1_000)
    encoder = Encoder(encoder_spec(model), scheduler, device="cpu")
    is_reranker = model.manifest.kind == "reranker"
    rows = encoder.score(CANARY, [CANARY]) if is_reranker else encoder.encode([CANARY])
    encoder.close()
    scheduler.close()
    vector: Vectors = rows[0]
    return vector
