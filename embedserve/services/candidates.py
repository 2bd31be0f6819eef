"""Try the recipes on one fp32 graph and choose: the fastest one that is faithful enough.

For each recipe and engine the ways are built from the fastest on until one passes the recipe's
gate. Those that pass stay loaded and are timed in turns, so that a busy machine slows all alike.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np

from embedserve.engine.backend import EngineFacts, describe
from embedserve.engine.cpu import CPU_INFO, cpu_features, has_vnni
from embedserve.errors import ModelError
from embedserve.models import fidelity
from embedserve.models.fidelity import FidelityCard
from embedserve.models.manifest import (
    ONNX_FILE,
    REFERENCE_FILE,
    TOKENIZER_FILE,
    Candidate,
    Performance,
    Runtime,
)
from embedserve.models.recipes import FULL_RANGE, RECIPES, SAFE_RANGE, Way
from embedserve.services.workshop import Workbench, Workshop
from embedserve.types import Arithmetic, Vectors

CANARY_TEXT = "The canary sings one song: 3 notes, no more. ¿Qué tal? 你好"

_BF16_FEATURES = {"avx512_bf16", "amx_bf16", "bf16"}
_ROUNDS = 3


@dataclass(frozen=True)
class Task:
    """What the candidates are made from, and where they are measured."""

    folder: Path
    """Holds the fp32 graph and the tokenizer; candidates are built in folders below."""
    kind: Literal["embedding", "reranker"]
    max_tokens: int
    dimensions: int
    pad_token_id: int
    device: str
    threads: int
    recipes: Sequence[Sequence[str]]
    """Groups of recipes; a later group is tried only when nothing of the earlier ones passes."""
    engines: Sequence[str]
    accepts_loss: bool = False
    """Whether what fails its gate may be installed all the same."""
    cpu_info: Path = CPU_INFO
    """What tells the features of the CPU."""
    engine_facts: Callable[[str], EngineFacts] = describe
    round_seconds: float = 0.3
    """How long one of the rounds takes by which speed is measured."""


@dataclass(frozen=True)
class Chosen:
    """The artefact to install; its graph is in `folder`."""

    folder: Path
    recipe: str
    method: str
    runtime: Runtime
    fidelity: FidelityCard
    performance: Performance
    canary: Vectors
    """(dimensions,) float32; of a reranker its score for the canary text with itself."""
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class _Passed:
    """A candidate that is faithful enough, still loaded."""

    bench: Workbench
    folder: Path
    recipe: str
    way: Way
    runtime: Runtime
    card: FidelityCard
    is_batch_invariant: bool


class CandidateSearch:
    """One search; use `run` once."""

    def __init__(self, task: Task, workshop: Workshop, tell: Callable[[str], None]) -> None:
        self._task = task
        self._workshop = workshop
        self._tell = tell
        self._refused: list[Candidate] = []
        self._built = 0
        self._ranges: Path | None = None

    def run(self) -> Chosen:
        """Return the fastest faithful candidate.

        Raises ModelError that names the failing figures when there is none.
        """
        with ExitStack() as benches:
            self._tell("measuring fp32")
            truth = self._true_rows()
            for group in self._task.recipes:
                passed = [
                    found
                    for recipe in group
                    for engine in self._task.engines
                    if (found := self._first_faithful(recipe, engine, truth, benches))
                ]
                if passed:
                    return self._fastest(passed)
        raise ModelError(self._why_none())

    def _first_faithful(
        self, recipe: str, engine: str, truth: Vectors, benches: ExitStack
    ) -> _Passed | None:
        for number, way in enumerate(RECIPES[recipe].ways):
            if way.engine == engine and (runtime := self._runtime(recipe, way)):
                self._tell(f"building {recipe} for {engine}: {way.method}")
                with ExitStack() as trial:
                    bench = trial.enter_context(self._workshop.workbench())
                    passed = self._try(bench, recipe, number, runtime, truth)
                    if passed:
                        benches.push(trial.pop_all())
                        return passed
        return None

    def _try(
        self, bench: Workbench, recipe: str, number: int, runtime: Runtime, truth: Vectors
    ) -> _Passed | None:
        way = RECIPES[recipe].ways[number]
        folder = self._task.folder / f"candidate-{self._built}"
        folder.mkdir()
        self._built += 1
        self._build(folder / ONNX_FILE, recipe, number)
        self._load(bench, folder / ONNX_FILE, runtime)
        ours = self._reference_rows(bench)
        compare = fidelity.compare_scores if self._is_reranker else fidelity.compare
        card = compare(truth, ours)
        failed = fidelity.failed_figures(card, recipe)
        is_batch_invariant: bool = bench.ask("is_batch_invariant")
        if RECIPES[recipe].is_batch_invariant and not is_batch_invariant:
            failed.append("vectors depend on the batch")
        if failed and not self._task.accepts_loss:
            verdict = f"refused: {'; '.join(failed)}"
            self._refused.append(Candidate(way.engine, recipe, way.method, verdict))
            return None
        return _Passed(bench, folder, recipe, way, runtime, card, is_batch_invariant)

    def _runtime(self, recipe: str, way: Way) -> Runtime | None:
        """Say how a way runs here, or note why it does not."""
        arithmetic: Arithmetic = way.arithmetic
        why_not = self._task.engine_facts(way.engine).why_not
        if RECIPES[recipe].device not in (self._task.device, "any"):
            why_not = f"recipe `{recipe}` is not for device `{self._task.device}`"
        if self._task.device != "cpu" and way.engine == "openvino":
            why_not = "this engine runs on CPUs only"
        if arithmetic == "bf16" and not _BF16_FEATURES & cpu_features(self._task.cpu_info):
            if recipe == "bf16":
                why_not = "this CPU has no bf16 arithmetic"
            arithmetic = "f32"
        if why_not:
            self._refused.append(Candidate(way.engine, recipe, way.method, f"not here: {why_not}"))
            return None
        return Runtime(way.engine, arithmetic, way.dynamic_group, self._task.pad_token_id)

    def _build(self, output: Path, recipe: str, number: int) -> None:
        way = RECIPES[recipe].ways[number]
        reference = str(self._task.folder / REFERENCE_FILE)
        with self._workshop.workbench() as bench:
            if way.needs_ranges and self._ranges is None:
                self._ranges = self._task.folder / "ranges.npz"
                bench.ask(
                    "observe",
                    reference=reference,
                    tokenizer=str(self._task.folder / TOKENIZER_FILE),
                    output=str(self._ranges),
                    max_tokens=self._task.max_tokens,
                    pad_token_id=self._task.pad_token_id,
                )
            bench.ask(
                "build",
                reference=reference,
                output=str(output),
                recipe=recipe,
                way=number,
                weight_limit=FULL_RANGE if self._has_vnni else SAFE_RANGE,
                ranges=str(self._ranges) if self._ranges else None,
            )

    def _load(self, bench: Workbench, graph: Path, runtime: Runtime) -> None:
        spec = {
            "artefact": graph.parent.name,
            "onnx_path": str(graph),
            "tokenizer_path": str(self._task.folder / TOKENIZER_FILE),
            "max_tokens": self._task.max_tokens,
            "dimensions": self._task.dimensions,
            "engine": runtime.engine,
            "arithmetic": runtime.arithmetic,
            "dynamic_group": runtime.dynamic_group,
            "pad_token_id": runtime.pad_token_id,
        }
        bench.ask("load", spec=spec, device=self._task.device, threads=self._task.threads)

    @property
    def _is_reranker(self) -> bool:
        return self._task.kind == "reranker"

    def _true_rows(self) -> Vectors:
        with self._workshop.workbench() as bench:
            runtime = Runtime("onnxruntime", "f32", 0, self._task.pad_token_id)
            self._load(bench, self._task.folder / REFERENCE_FILE, runtime)
            return self._reference_rows(bench)

    def _reference_rows(self, bench: Workbench) -> Vectors:
        """Return what fidelity compares: vectors of texts, or scores of queries by passages."""
        if self._is_reranker:
            queries, passages = fidelity.reference_pairs()
            return self._rows(bench, "score", queries=queries, passages=passages)
        return self._rows(bench, "encode", texts=fidelity.reference_texts())

    def _canary(self, bench: Workbench) -> Vectors:
        rows = (
            self._rows(bench, "score", queries=[CANARY_TEXT], passages=[CANARY_TEXT])
            if self._is_reranker
            else self._rows(bench, "encode", texts=[CANARY_TEXT])
        )
        vector: Vectors = rows[0]
        return vector

    def _rows(self, bench: Workbench, do: str, **arguments: list[str]) -> Vectors:
        output = self._task.folder / "rows.npy"
        bench.ask(do, output=str(output), **arguments)
        rows: Vectors = np.load(output)
        return rows

    def _fastest(self, passed: list[_Passed]) -> Chosen:
        self._tell("measuring speed")
        rounds = [[self._speed(one, "mixed") for one in passed] for _ in range(_ROUNDS)]
        mixed = [median(speeds) for speeds in zip(*rounds, strict=True)]
        best = mixed.index(max(mixed))
        tried = [
            Candidate(
                one.way.engine,
                one.recipe,
                one.way.method,
                "installed" if number == best else "slower",
                mixed[number],
            )
            for number, one in enumerate(passed)
        ]
        one = passed[best]
        performance = Performance(
            tokens_per_s_16=median(self._speed(one, "16") for _ in range(_ROUNDS)),
            tokens_per_s_128=median(self._speed(one, "128") for _ in range(_ROUNDS)),
            tokens_per_s_mixed=mixed[best],
            is_batch_invariant=one.is_batch_invariant,
            # Last, so that its memory is what all of that took.
            **one.bench.ask("machine"),
        )
        return Chosen(
            folder=one.folder,
            recipe=one.recipe,
            method=self._method(one.way),
            runtime=one.runtime,
            fidelity=one.card,
            performance=performance,
            canary=self._canary(one.bench),
            candidates=(*tried, *self._refused),
        )

    def _speed(self, one: _Passed, of: str) -> float:
        speed: float = one.bench.ask("speed", of=of, seconds=self._task.round_seconds)
        return speed

    @property
    def _has_vnni(self) -> bool:
        return has_vnni(self._task.cpu_info)

    def _method(self, way: Way) -> str:
        if way.needs_ranges and not self._has_vnni:
            return f"{way.method}; 7-bit weights, as this CPU has no VNNI"
        return way.method

    def _why_none(self) -> str:
        tried = "; ".join(
            f"`{one.recipe}` on {one.engine} ({one.method}) {one.verdict}" for one in self._refused
        )
        return (
            f"Nothing that was tried keeps enough of this model: {tried}. Pull it without "
            "`--recipe` and `--engine` to have the fastest faithful one chosen, or with "
            "`--accept-loss` to install it all the same."
        )
