"""Export a model, build the ways of the recipes from it, load each in a process of its own."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedserve.engine.backend import describe
from embedserve.engine.cores import available_cores
from embedserve.engine.cpu import cpu_class
from embedserve.models.checkpoint import Overrides, read_facts
from embedserve.models.manifest import (
    ONNX_FILE,
    REFERENCE_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Runtime,
    digest_file,
)
from embedserve.models.recipes import FULL_RANGE, RECIPES, SAFE_RANGE, Way
from embedserve.services.machine import Machine
from embedserve.services.workshop import Workbench, Workshop
from embedserve.types import Arithmetic, Vectors


@dataclass(frozen=True)
class Model:
    """An exported model."""

    folder: Path
    """Holds the fp32 graph and the tokenizer; artefacts are built in folders below."""
    max_tokens: int
    dimensions: int
    pad_token_id: int

    @property
    def reference(self) -> Path:
        """The fp32 graph."""
        return self.folder / REFERENCE_FILE

    @property
    def tokenizer(self) -> Path:
        """The `tokenizer.json`."""
        return self.folder / TOKENIZER_FILE


@dataclass(frozen=True)
class Artefact:
    """A graph and how it is run."""

    graph: Path
    runtime: Runtime

    @property
    def size_bytes(self) -> int:
        """Return the size of the graph with its weights, wherever those are."""
        weights = self.graph.with_name(WEIGHTS_FILE)
        return self.graph.stat().st_size + (weights.stat().st_size if weights.exists() else 0)

    @property
    def identity(self) -> tuple[str, ...]:
        """Name all that its vectors depend on, but for the texts."""
        version = describe(self.runtime.engine).version
        return digest_file(self.graph).sha256, repr(self.runtime), version, cpu_class()


def export_model(checkpoint: Path, folder: Path, workshop: Workshop) -> Model:
    """Write fp32 graph and tokenizer into the existing `folder`."""
    workshop.exporter.export(checkpoint, folder, Overrides())
    facts = read_facts(checkpoint)
    return Model(folder, facts.max_tokens, facts.dimensions, facts.pad_token_id)


def ways_here(recipes: Sequence[str]) -> list[tuple[str, int]]:
    """List the ways of these recipes that this machine can run, by recipe and number."""
    return [
        (recipe, number)
        for recipe in recipes
        for number, way in enumerate(RECIPES[recipe].ways)
        if describe(way.engine).is_available and (recipe != "bf16" or machine().has_bf16)
    ]


def runtime_of(way: Way, model: Model) -> Runtime:
    """Say how a way runs here."""
    arithmetic: Arithmetic = way.arithmetic
    if arithmetic == "bf16" and not machine().has_bf16:
        arithmetic = "f32"
    return Runtime(way.engine, arithmetic, way.dynamic_group, model.pad_token_id)


def reference_artefact(model: Model) -> Artefact:
    """Return what all others are compared with."""
    return Artefact(model.reference, Runtime("onnxruntime", "f32", 0, model.pad_token_id))


def build(model: Model, recipe: str, number: int, workshop: Workshop) -> Artefact:
    """Build one way of a recipe."""
    way = RECIPES[recipe].ways[number]
    graph = model.folder / f"{recipe}-{number}" / ONNX_FILE
    graph.parent.mkdir()
    ranges = model.folder / "ranges.npz"
    with workshop.workbench() as bench:
        if way.needs_ranges and not ranges.exists():
            bench.ask(
                "observe",
                reference=str(model.reference),
                tokenizer=str(model.tokenizer),
                output=str(ranges),
                max_tokens=model.max_tokens,
                pad_token_id=model.pad_token_id,
            )
        bench.ask(
            "build",
            reference=str(model.reference),
            output=str(graph),
            recipe=recipe,
            way=number,
            weight_limit=FULL_RANGE if machine().has_vnni else SAFE_RANGE,
            ranges=str(ranges) if way.needs_ranges else None,
        )
    return Artefact(graph, runtime_of(way, model))


def load(model: Model, artefact: Artefact, workshop: Workshop, benches: ExitStack) -> Workbench:
    """Load an artefact in a process that lives as long as `benches`."""
    bench = benches.enter_context(workshop.workbench())
    runtime = artefact.runtime
    spec = {
        "artefact": artefact.graph.parent.name,
        "onnx_path": str(artefact.graph),
        "tokenizer_path": str(model.tokenizer),
        "max_tokens": model.max_tokens,
        "dimensions": model.dimensions,
        "engine": runtime.engine,
        "arithmetic": runtime.arithmetic,
        "dynamic_group": runtime.dynamic_group,
        "pad_token_id": runtime.pad_token_id,
    }
    bench.ask("load", spec=spec, device="cpu", threads=available_cores())
    return bench


def encode(bench: Workbench, texts: Sequence[str], scratch: Path) -> Vectors:
    """Embed texts, (texts, dimensions) float32."""
    output = scratch / "vectors.npy"
    bench.ask("encode", texts=list(texts), output=str(output))
    vectors: Vectors = np.load(output)
    return vectors


def machine() -> Machine:
    """Return this machine, all its cores."""
    return Machine("cpu", available_cores())
