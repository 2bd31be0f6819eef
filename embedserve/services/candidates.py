"""Try the recipes on one fp32 graph and choose: the fastest one that is faithful enough.

For each recipe and engine the ways are built from the fastest on until one passes the recipe's
gate; one that cannot be built or loaded is refused like one that fails it. Those that pass stay
loaded and are timed in turns, so that a busy machine slows all alike. Where loss is accepted and
nothing of a group of recipes passes, the most faithful way of each stands in.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Literal

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
from embedserve.services.machine import Machine
from embedserve.services.workshop import LoadedModel, Workbench, Workshop
from embedserve.types import EncoderSpec, Vectors

CANARY_TEXT = "The canary sings one song: 3 notes, no more. ¿Qué tal? 你好"

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
    machine: Machine
    recipes: Sequence[Sequence[str]]
    """Groups of recipes; a later group is tried only when nothing of the earlier ones passes."""
    engines: Sequence[str]
    accepts_loss: bool = False
    """Whether what fails its gate may be installed all the same, where nothing else can."""


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
class _Built:
    """A candidate that was measured, still loaded."""

    model: LoadedModel
    folder: Path
    recipe: str
    way: Way
    runtime: Runtime
    card: FidelityCard
    is_batch_invariant: bool
    failed: tuple[str, ...]
    """What fails its gate, in words."""


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
                found = [
                    best
                    for recipe in group
                    for engine in self._task.engines
                    if (best := self._best_way(recipe, engine, truth, benches))
                ]
                if passed := [one for one in found if not one.failed]:
                    for one in found:
                        if one.failed:
                            self._refuse(one.recipe, one.way, "; ".join(one.failed))
                    return self._fastest(passed)
                if found:
                    return self._fastest(found)
        raise ModelError(self._why_none())

    def _best_way(
        self, recipe: str, engine: str, truth: Vectors, benches: ExitStack
    ) -> _Built | None:
        """Return the first way that passes; else where loss is accepted the most faithful one."""
        best: _Built | None = None
        kept = benches.enter_context(ExitStack())
        for number, way in enumerate(RECIPES[recipe].ways):
            if way.engine != engine or not (runtime := self._runtime(recipe, way)):
                continue
            self._tell(f"building {recipe} for {engine}: {way.method}")
            with ExitStack() as trial:
                bench = trial.enter_context(self._workshop.workbench())
                built = self._try(bench, recipe, number, runtime, truth)
                if built is None or not self._is_better(built, best):
                    continue
                if best:
                    self._refuse(recipe, best.way, "; ".join(best.failed))
                kept.close()
                kept.push(trial.pop_all())
                best = built
            if not best.failed:
                break
        return best

    def _is_better(self, built: _Built, best: _Built | None) -> bool:
        """Tell whether a candidate goes before the best so far; note the one that does not."""
        is_better = not built.failed or (
            self._task.accepts_loss
            and (best is None or built.card.cosine_mean > best.card.cosine_mean)
        )
        if not is_better:
            self._refuse(built.recipe, built.way, "; ".join(built.failed))
        return is_better

    def _try(
        self, bench: Workbench, recipe: str, number: int, runtime: Runtime, truth: Vectors
    ) -> _Built | None:
        """Build, load and measure a way; None where that cannot be done, which is noted."""
        way = RECIPES[recipe].ways[number]
        folder = self._task.folder / f"candidate-{self._built}"
        folder.mkdir()
        self._built += 1
        try:
            self._build(folder / ONNX_FILE, recipe, number)
            model = self._load(bench, folder / ONNX_FILE, runtime)
            card = fidelity.compare_kind(self._task.kind, truth, model.reference_rows())
            is_batch_invariant = model.is_batch_invariant()
        except ModelError as error:
            if self._workshop.is_closed:
                raise
            self._refuse(recipe, way, error.message.partition("\n")[0])
            return None
        failed = fidelity.failed_figures(card, recipe)
        if RECIPES[recipe].is_batch_invariant and not is_batch_invariant:
            failed.append("vectors depend on the batch")
        return _Built(model, folder, recipe, way, runtime, card, is_batch_invariant, tuple(failed))

    def _refuse(self, recipe: str, way: Way, why: str) -> None:
        self._refused.append(Candidate(way.engine, recipe, way.method, f"refused: {why}"))

    def _runtime(self, recipe: str, way: Way) -> Runtime | None:
        """Say how a way runs here, or note why it does not."""
        machine, arithmetic = self._task.machine, way.arithmetic
        why_not = machine.why_not(recipe, way.engine)
        if arithmetic == "bf16" and not machine.has_bf16:
            if recipe == "bf16":
                why_not = why_not or "this CPU has no bf16 arithmetic"
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
                self._ranges = self._observe(bench, reference)
            bench.ask(
                "build",
                reference=reference,
                output=str(output),
                recipe=recipe,
                way=number,
                weight_limit=FULL_RANGE if self._task.machine.has_vnni else SAFE_RANGE,
                ranges=str(self._ranges) if self._ranges else None,
            )

    def _observe(self, bench: Workbench, reference: str) -> Path:
        ranges = self._task.folder / "ranges.npz"
        bench.ask(
            "observe",
            reference=reference,
            tokenizer=str(self._task.folder / TOKENIZER_FILE),
            output=str(ranges),
            max_tokens=self._task.max_tokens,
            pad_token_id=self._task.pad_token_id,
            kind=self._task.kind,
        )
        return ranges

    def _load(self, bench: Workbench, graph: Path, runtime: Runtime) -> LoadedModel:
        task = self._task
        spec = EncoderSpec(
            artefact=graph.parent.name,
            onnx_path=graph,
            tokenizer_path=task.folder / TOKENIZER_FILE,
            max_tokens=task.max_tokens,
            dimensions=task.dimensions,
            kind=task.kind,
            **asdict(runtime),
        )
        machine = task.machine
        return LoadedModel(bench, spec, task.kind, device=machine.device, threads=machine.threads)

    def _true_rows(self) -> Vectors:
        with self._workshop.workbench() as bench:
            runtime = Runtime("onnxruntime", "f32", 0, self._task.pad_token_id)
            model = self._load(bench, self._task.folder / REFERENCE_FILE, runtime)
            return model.reference_rows()

    def _fastest(self, built: list[_Built]) -> Chosen:
        self._tell("measuring speed")
        rounds = [[self._speed(one, "mixed") for one in built] for _ in range(_ROUNDS)]
        mixed = [median(speeds) for speeds in zip(*rounds, strict=True)]
        best = mixed.index(max(mixed))
        tried = [
            Candidate(
                one.way.engine,
                one.recipe,
                one.way.method,
                _verdict(one, is_installed=number == best),
                mixed[number],
            )
            for number, one in enumerate(built)
        ]
        one = built[best]
        performance = Performance(
            tokens_per_s_16=median(self._speed(one, "16") for _ in range(_ROUNDS)),
            tokens_per_s_128=median(self._speed(one, "128") for _ in range(_ROUNDS)),
            tokens_per_s_mixed=mixed[best],
            is_batch_invariant=one.is_batch_invariant,
            # Last, so that its memory is what all of that took.
            **one.model.machine(),
        )
        return Chosen(
            folder=one.folder,
            recipe=one.recipe,
            method=self._method(one.way),
            runtime=one.runtime,
            fidelity=one.card,
            performance=performance,
            canary=one.model.canary(CANARY_TEXT),
            candidates=(*tried, *self._refused),
        )

    def _speed(self, one: _Built, of: str) -> float:
        return one.model.speed(of, self._task.machine.round_seconds)

    def _method(self, way: Way) -> str:
        if way.needs_ranges and not self._task.machine.has_vnni:
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


def _verdict(one: _Built, *, is_installed: bool) -> str:
    verdict = "installed" if is_installed else "slower"
    return f"{verdict}, below its gate: {'; '.join(one.failed)}" if one.failed else verdict
